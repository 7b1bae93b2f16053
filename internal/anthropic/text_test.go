package anthropic

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
)

func TestText(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, event := range anthropictest.Whole("tool_use", anthropictest.Thinking(0, "sig", "h", "m"), anthropictest.Text(1, " a", "b "), anthropictest.Tool(2, "t1", "f", `{"a":`, "1}")) {
		got.WriteString(Text([]byte(event)))
	}
	if want := `hm ab f{"a":1}`; got.String() != want {
		t.Errorf("a stream shows %q, want %q", got.String(), want)
	}
	message := strings.Replace(anthropictest.Message("x"), `}],"stop`, `},{"type":"tool_use","name":"f","input":{"a":1}}],"stop`, 1)
	for data, want := range map[string]string{message: `xf{"a":1}`, `{"choices":[]}`: "", "x": "", `{"type":"ping"}`: ""} {
		if got := Text([]byte(data)); got != want {
			t.Errorf("%s shows %q, want %q", data, got, want)
		}
	}
}
