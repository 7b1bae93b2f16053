package responses

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func TestContinue(t *testing.T) {
	t.Parallel()
	output := `[{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hello","annotations":[]}]}]`
	for _, c := range []struct{ name, earlier, output, body, want string }{
		{
			"texts", `{"model":"m","input":"hi","instructions":"dropped"}`, output, `{"model":"m","previous_response_id":"resp_1","input":"and?"}`,
			`{"model":"m","x_previous_response_id":"resp_1","input":[{"role":"user","content":"hi"},` + output[1:len(output)-1] + `,{"role":"user","content":"and?"}]}`,
		},
		{
			"items", `{"input":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}`, output, `{"input":[{"role":"user","content":"c"}],"previous_response_id":"resp_1"}`,
			`{"input":[{"role":"user","content":"a"},{"role":"user","content":"b"},` + output[1:len(output)-1] + `,{"role":"user","content":"c"}],"x_previous_response_id":"resp_1"}`,
		},
		{
			"an answer that said nothing", `{"input":"a"}`, `[]`, `{"input":"b","previous_response_id":"resp_1"}`,
			`{"input":[{"role":"user","content":"a"},{"role":"user","content":"b"}],"x_previous_response_id":"resp_1"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, string(Continue([]byte(c.earlier), []byte(c.output), []byte(c.body)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What Continue makes is a body like any other, and says from which response it goes on.
func TestContinuedBodyIsConverted(t *testing.T) {
	t.Parallel()
	body := Continue([]byte(`{"input":"hi"}`), []byte(`[{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"hello"}]}]`),
		[]byte(`{"model":"m","input":"and?","previous_response_id":"resp_1"}`))
	chat, err := toChat(body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"},{"role":"user","content":"and?"}],"stream":true,"stream_options":{"include_usage":true}}`
	if diff := cmp.Diff(want, string(chat.Body)); diff != "" {
		t.Error(diff)
	}
	_, response := play(t, parse(t, string(body)), framesOf(nil, &schemas.Frame{Kind: schemas.KindEnd}, one), Silent)
	if got := member(response, "previous_response_id"); got != "resp_1" {
		t.Errorf("the response says that it goes on from %q", got)
	}
}

func TestInputItems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"text", `{"input":"hi"}`, []string{
			`{"id":"in_r1_0","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"hi"}]}`,
		}},
		{"items", `{"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},` + "\n" + `{"role":"assistant","content":"b","type":"message"},{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}]}`, []string{
			`{"id":"in_r1_0","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"a"}]}`,
			`{"id":"in_r1_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"b"}],"type":"message"}`,
			`{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{}"}`,
			`{"id":"in_r1_3","type":"function_call_output","call_id":"c","output":"x"}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			items, ids := InputItems("r1", []byte(c.body))
			for i, item := range items {
				if got = append(got, string(item)); member(got[i], "id") != ids[i] {
					t.Errorf("item %d has the id %s in the list of ids", i, ids[i])
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	if got, ok := RequestID(ID("req_1")); !ok || got != "req_1" {
		t.Errorf("%q, %v", got, ok)
	}
	if _, ok := RequestID("req_1"); ok {
		t.Error("an id of something else is taken for that of a response")
	}
}

// FuzzToChat converts what the check of the door lets through: it ends in a chat body that the same check accepts, or in
// an error for the caller, and a response to it can be told in either case.
func FuzzToChat(f *testing.F) {
	for _, c := range goldenCases(f, "convert") {
		for _, body := range c.lines("bodies") {
			f.Add([]byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		parsed, err := openai.ParseRequest(schemas.OpResponses, body, openai.Policy{})
		if err != nil {
			return
		}
		r, err := Parse(parsed.Body)
		if err != nil {
			mustBeOurs(t, err)
			return
		}
		chain := framesOf([]string{`{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}`}, &schemas.Frame{Kind: schemas.KindEnd}, one)
		events, _ := play(t, r, chain, FromStart)
		check(t, events)
		for _, item := range first(InputItems("r1", parsed.Body)) {
			if member(string(item), "id") == "" {
				t.Errorf("an item without an id: %s", item)
			}
		}
		chat, err := ToChat(parsed, openai.Policy{})
		if err != nil {
			mustBeOurs(t, err)
			return
		}
		if !chat.Stream || !chat.IncludeUsage || chat.Model != parsed.Model || chat.N != 1 {
			t.Errorf("converted to %+v", chat)
		}
	})
}

func mustBeOurs(t *testing.T, err error) {
	t.Helper()
	if e := schemas.AsError(err); e.Code == schemas.CodeInternal {
		t.Errorf("an error that says nothing to its caller: %v", err)
	}
}

func first(items [][]byte, _ []string) [][]byte { return items }
