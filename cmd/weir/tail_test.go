package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

// TestForeignNamesPrintAsOneLine: whoever may send a request chooses the model's name.
func TestForeignNamesPrintAsOneLine(t *testing.T) {
	t.Parallel()
	const name = "größe\x1b[31m\n12:00:00  acme/forged\u202e\u0085"
	r := &schemas.Result{
		Tenant: "acme", RequestID: "r1", Model: name, Status: schemas.StatusRejected, Finished: time.Now(),
		Error: schemas.Errorf(schemas.CodeModelNotFound, "no %s", name).Encode(),
	}
	told := &schemas.Frame{Kind: schemas.KindError, Data: r.Error}
	for what, print := range map[string]func(*strings.Builder) error{
		"tail": func(out *strings.Builder) error { return printResultLine(out, r) },
		"title": func(out *strings.Builder) error {
			return (&teller{out: out, story: &story{id: r.Identity(), result: r}}).title()
		},
		"replay": func(out *strings.Builder) error {
			return (&teller{out: out, story: &story{id: r.Identity(), result: r}}).tell(told)
		},
	} {
		var out strings.Builder
		if err := print(&out); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\x1b\u202e\u0085") || !strings.Contains(got, `größe\x1b[31m\n12:00:00  acme/forged\u202e\u0085`) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestReplayOfWhatWasDeletedSaysSo(t *testing.T) {
	t.Parallel()
	r := &schemas.Result{Tenant: "acme", RequestID: "r1", Model: "m", Status: schemas.StatusDeleted}
	var out strings.Builder
	err := (&teller{out: &out, story: &story{id: r.Identity(), result: r}}).tell(&schemas.Frame{Kind: schemas.KindError})
	if err != nil || !strings.HasSuffix(out.String(), "error     deleted\n") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestAnswersDoNotCommandTheTerminal(t *testing.T) {
	t.Parallel()
	const said = "größe\x1b]52;c;eA==\x07\u009b31m\n\tend"
	data, err := json.Marshal(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]string{"content": said}}}})
	if err != nil {
		t.Fatal(err)
	}
	for terminal, want := range map[bool]string{false: said + "\n", true: "größe\ufffd]52;c;eA==\ufffd\ufffd31m\n\tend\n"} {
		var out bytes.Buffer
		c := &cli{stdout: &out, terminal: terminal}
		err := c.showAnswer(func(yield func(client.Event, error) bool) { yield(client.Event{Data: data}, nil) })
		if err != nil || out.String() != want {
			t.Errorf("terminal %v: %q, %v", terminal, &out, err)
		}
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is a terminal")
	}
}
