package inference_test

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/schemas"
)

// asked remembers the calls of a backend.
type asked struct {
	inference.Backend
	calls chan inference.GenerateRequest
}

func (a asked) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	a.calls <- *r
	return a.Backend.Generate(ctx, r)
}

func responsesWork(id, body string) *schemas.Work {
	w := work(id, 1, body)
	w.Op, w.Accepted = schemas.OpResponses, time.UnixMilli(1764000000999)
	w.Deadline = time.Now().Add(patience)
	return w
}

// A Responses request is asked as a streamed chat, and its chain holds the chunks with the usage. The request that is kept
// is the caller's own.
func TestResponsesRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend, err := echo.New(echo.Config{Name: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan inference.GenerateRequest, 1)
	body := `{"model":"m","instructions":"be brief","input":"hi","max_output_tokens":50}`
	w := responsesWork("r1", body)
	p.dispatch(w)
	p.worker("w1", asked{backend, calls})
	seen := p.read(identity("r1"))
	if seen.text != "echo: hi" || seen.code() != "" {
		t.Errorf("got %q and %q", seen.text, seen.code())
	}
	call := <-calls
	want := `{"model":"m","max_completion_tokens":50,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`
	if diff := cmp.Diff(want, string(call.Body)); diff != "" || call.Op != schemas.OpChat || !call.Stream {
		t.Errorf("asked as %s, streamed %v:\n%s", call.Op, call.Stream, diff)
	}
	result := p.ended(identity("r1"))
	if string(result.Request) != body || result.Op != schemas.OpResponses || result.BodyHash != schemas.BodyHash([]byte(body)) || result.Usage == nil {
		t.Errorf("kept as %s: %s, usage %v", result.Op, result.Request, result.Usage)
	}
	chain := p.chain(identity("r1"))
	if got := chain.Start().Start.Accepted; !got.Equal(w.Accepted) || !result.Created.IsZero() || !result.Accepted.Equal(w.Accepted) {
		t.Errorf("the start frame says accepted at %v, the result %v and created at %v", got, result.Accepted, result.Created)
	}
	usage := false
	for _, event := range chain.Events() {
		usage = usage || gjson.GetBytes(event, "usage.total_tokens").Int() > 0
	}
	if !usage {
		t.Error("no chunk has the usage")
	}
}

// When the request was found to be accepted before it was claimed, the result knows the time of that frame.
func TestResultKnowsWhenAResponseWasCreated(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.append(id, &schemas.Frame{Kind: schemas.KindAccepted, Writer: "door", Data: []byte(`{"model":"m","input":"hi"}`)})
	p.dispatch(responsesWork("r1", `{"model":"m","input":"hi"}`))
	p.worker("w1", &fake{words: []string{"one"}})
	if got := p.read(id); got.text != "one" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if result, want := p.ended(id), p.chain(id).Frames[0].Time; !result.Created.Equal(want) {
		t.Errorf("created at %v, want %v", result.Created, want)
	}
}

func TestResponseIsTakenOver(t *testing.T) {
	t.Parallel()
	p := setup(t)
	words := []string{"one ", "two ", "three"}
	item := p.lose("w1", responsesWork("r1", `{"model":"m","input":"hi","temperature":0}`), &fake{words: words, deterministic: true}, 2)
	p.worker("w2", &fake{words: []string{"one two", " three"}, deterministic: true})
	p.tap.nak(item, 1)
	if got := p.read(identity("r1")); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(identity("r1"))
	if got := modes(p.chain(identity("r1"))); got != "fresh splice" {
		t.Errorf("modes %s", got)
	}
}

// What the door would have refused is refused here when it came over NATS.
func TestResponsesRequestThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.dispatch(responsesWork("r1", `{"model":"m","input":"hi","tools":[{"type":"web_search"}]}`))
	p.worker("w1", &fake{words: []string{"never"}})
	if got := p.read(identity("r1")); got.code() != schemas.CodeUnsupported {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(identity("r1")); r.Status != schemas.StatusRejected || !strings.Contains(string(r.Error), "tools[0]") {
		t.Errorf("%s: %s", r.Status, r.Error)
	}
}
