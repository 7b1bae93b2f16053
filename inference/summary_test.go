package inference_test

import (
	"fmt"
	"strings"
	"testing"
)

// What an upstream says about a unary answer travels in a header, which the server bounds.
func TestLargeSummary(t *testing.T) {
	t.Parallel()
	p := setup(t)
	answer := fmt.Appendf(nil, `{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"trace":%q}}`, strings.Repeat("x", 100_000))
	p.worker("w1", &fake{words: three, whole: answer})
	id := p.send("r1", whole)
	if got := p.read(id); string(got.terminal.Data) != string(answer) {
		t.Errorf("got %d bytes and %q", len(got.terminal.Data), got.code())
	}
	if r := p.ended(id); r.Usage == nil || r.Usage.TotalTokens != 3 {
		t.Errorf("usage %+v", r.Usage)
	}
}
