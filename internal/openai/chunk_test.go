package openai

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

func peek(t testing.TB, data string) *Chunk {
	t.Helper()
	c := &Chunk{}
	if err := c.Peek([]byte(data)); err != nil {
		t.Fatalf("Peek(%s): %v", data, err)
	}
	return c
}

func TestPeek(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, data string
		want       Chunk
	}{
		{"delta", `{"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"a\nb\u00e9"},"finish_reason":null}]}`,
			Chunk{ID: "c1", Object: "chat.completion.chunk", Model: "m", Choices: []Choice{{Content: "a\nbé"}}}},
		{"role", `{"choices":[{"index":1,"delta":{"role":"assistant","content":"","refusal":null}}]}`, Chunk{Choices: []Choice{{Index: 1, Role: "assistant"}}}},
		{"finish with a space", `{"choices": [ {"index": 0, "delta": {}, "finish_reason" : "stop"} ], "usage": null}`, Chunk{Choices: []Choice{{Finish: "stop"}}}},
		{"several", `{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}`,
			Chunk{Choices: []Choice{{Index: 1, Content: "b"}, {Content: "a", Finish: "length"}}}},
		{"tool", `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x"}]}}]}`, Chunk{Choices: []Choice{{ToolCalls: `[{"index":0,"id":"x"}]`}}}},
		{"reasoning", `{"choices":[{"index":0,"delta":{"reasoning_content":null,"reasoning":"hm"}}]}`, Chunk{Choices: []Choice{{Reasoning: "hm"}}}},
		{"usage", `{"choices":[],"usage":{"total_tokens":5}}`, Chunk{Usage: `{"total_tokens":5}`, Choices: []Choice{}}},
		{"null error", `{"choices":[],"error":null}`, Chunk{Choices: []Choice{}}},
		{"error", `{"error":{"message":"x"}}`, Chunk{Error: `{"message":"x"}`}},
		{"error text", `{"error":"x"}`, Chunk{Error: `"x"`}},
		{"old vLLM error", `{"object":"error","message":"x"}`, Chunk{Object: "error", Error: `{"object":"error","message":"x"}`}},
		{"response", `{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop","logprobs":{"content":[]}}]}`,
			Chunk{ID: "c1", Choices: []Choice{{Role: "assistant", Content: "hi", Finish: "stop", LogProbs: `{"content":[]}`}}}},
		{"completion", `{"choices":[{"index":0,"text":"hi","finish_reason":null}]}`, Chunk{Choices: []Choice{{Content: "hi"}}}},
		{"wrong types", `{"id":1,"model":[],"choices":{"a":1},"usage":7}`, Chunk{}},
		{"odd choices", `{"choices":[1,null,"x",{"index":"a","delta":[{"content":1}]}]}`, Chunk{Choices: []Choice{{}, {Index: 1}, {Index: 2}, {Index: 0}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := peek(t, test.data)
			if diff := cmp.Diff(&test.want, got, cmpopts.IgnoreUnexported(Chunk{}, Choice{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("chunk (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPeekRefuses(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]error{
		"": ErrNotJSON, "<html>": ErrNotJSON, `{"a":1`: ErrNotJSON, `{"a":1}x`: ErrNotJSON, "[1]": ErrNotObject, `"x"`: ErrNotObject, "null": ErrNotObject,
		strings.Repeat("[", 8<<20):                                               ErrTooDeep,
		`{"a":"` + strings.Repeat(`[\"`, 2000) + `"}`:                            nil,
		`{"a":` + strings.Repeat(`{"a":`, 999) + "1" + strings.Repeat("}", 1000): nil,
	} {
		if err := new(Chunk).Peek([]byte(data)); !errors.Is(err, want) {
			t.Errorf("Peek(%.20q): %v, want %v", data, err, want)
		}
	}
}

func TestChunkSurvivesItsData(t *testing.T) {
	t.Parallel()
	data := []byte(`{"id":"c1","choices":[{"index":0,"delta":{"content":"abc"}}]}`)
	c := &Chunk{}
	if err := c.Peek(data); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if c.ID != "c1" || c.Choices[0].Content != "abc" {
		t.Errorf("the chunk changed with its data: %+v", c)
	}
}

func TestParseUsage(t *testing.T) {
	t.Parallel()
	c := peek(t, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`)
	want := &schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5}
	if diff := cmp.Diff(want, c.ParseUsage()); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if got := peek(t, `{"choices":[],"usage":{"prompt_tokens":"many"}}`).ParseUsage(); got != nil {
		t.Errorf("usage of no numbers: %+v", got)
	}
}

func TestMend(t *testing.T) {
	t.Parallel()
	const plain = `{"id":"c2","created":7,"model":"real","choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}`
	const later = `{"id":"c2","created":7,"model":"real","choices":[{"index":0,"delta":{"content":"a"}}]}`
	const role = `{"id":"c2","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`
	const usage = `{"choices":[],"usage":{"total_tokens":5}}`
	origin := &Origin{ID: `"c1"`, Created: "1", Model: `"first"`}
	for _, test := range []struct {
		name     string
		mender   Mender
		in, want string // empty: not passed on
	}{
		{"nothing to do", Mender{}, plain, plain},
		{"usage asked for", Mender{}, usage, usage},
		{"usage not asked for", Mender{DropUsage: true}, usage, ""},
		{"usage with text", Mender{DropUsage: true}, `{"choices":[{"index":0}],"usage":{}}`, `{"choices":[{"index":0}],"usage":{}}`},
		{"null error first", Mender{}, `{"error":null,"choices":[]}`, `{"choices":[]}`},
		{"null error last", Mender{}, `{"choices":[], "error" : null }`, `{"choices":[] }`},
		{"null error between", Mender{}, `{"a":1,"error":null,"choices":[]}`, `{"a":1,"choices":[]}`},
		{"empty error", Mender{}, `{"choices":[],"error":""}`, `{"choices":[]}`},
		{"null error alone", Mender{}, `{"error":null}`, `{"choices":[]}`},
		{"no choices", Mender{}, `{"id":"x"}`, `{"id":"x","choices":[]}`},
		{"no members", Mender{}, `{ }`, `{ "choices":[]}`},
		{"null choices", Mender{}, `{"choices":null}`, `{"choices":[]}`},
		{"several lines", Mender{}, "{\n \"choices\": [\r\n]}", `{"choices":[]}`},
		{"public name", Mender{Model: `my "m"`}, plain, strings.Replace(plain, `"real"`, `"my \"m\""`, 1)},
		{"public name already", Mender{Model: "real"}, plain, plain},
		{"after a take-over", Mender{As: origin}, later, `{"id":"c1","created":1,"model":"first","choices":[{"index":0,"delta":{"content":"a"}}]}`},
		{"second role", Mender{As: origin}, role, ""},
		{"first role", Mender{}, role, role},
		{"no role", Mender{}, later, plain},
		{"no role and no content", Mender{}, `{"choices":[{"delta": { } }]}`, `{"choices":[{"delta": {"role":"assistant" } }]}`},
		{"role that is none", Mender{}, `{"choices":[{"delta":{"role" : null}}, {"index":1,"delta":{"role":""}}]}`,
			`{"choices":[{"delta":{"role" : "assistant"}}, {"index":1,"delta":{"role":"assistant"}}]}`},
		{"no delta", Mender{}, `{"choices":[{"index":0},{"index":1,"delta":null}]}`, `{"choices":[{"index":0},{"index":1,"delta":null}]}`},
		{"text completion", Mender{}, `{"choices":[{"index":0,"text":"a"}]}`, `{"choices":[{"index":0,"text":"a"}]}`},
		{"everything", Mender{As: origin}, `{"error":null,"id":"c2"}`, `{"choices":[],"id":"c1"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			in := []byte(test.in)
			got, keep := test.mender.Mend(in, peek(t, test.in))
			if keep != (test.want != "") || string(got) != test.want {
				t.Errorf("got %s, %v\nwant %s", got, keep, test.want)
			}
			if string(in) != test.in {
				t.Errorf("the input was changed to %s", in)
			}
		})
	}
}

// The role is added once: to the first delta of each choice, which need not come in its first chunk.
func TestMendRoleOnce(t *testing.T) {
	t.Parallel()
	var m Mender
	for i, step := range []struct{ choices, want string }{
		{`{"index":0,"finish_reason":null}`, `{"index":0,"finish_reason":null}`},
		{`{"index":0,"delta":{"content":"a"}}`, `{"index":0,"delta":{"role":"assistant","content":"a"}}`},
		{`{"index":0,"delta":{"content":"b"}}`, `{"index":0,"delta":{"content":"b"}}`},
		{`{"index":2,"delta":{"content":"c"}},{"index":0,"delta":{}}`, `{"index":2,"delta":{"role":"assistant","content":"c"}},{"index":0,"delta":{}}`},
		{`{"index":1,"delta":{"role":"tool"}},{"index":2,"delta":{}}`, `{"index":1,"delta":{"role":"tool"}},{"index":2,"delta":{}}`},
	} {
		in := `{"choices":[` + step.choices + `]}`
		if got, _ := m.Mend([]byte(in), peek(t, in)); string(got) != `{"choices":[`+step.want+`]}` {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}

func TestMendToolIndex(t *testing.T) {
	t.Parallel()
	var m Mender
	for i, step := range []struct{ calls, want string }{
		{`[{"id":"a","function":{"name":"f"}}]`, `[{"index":0,"id":"a","function":{"name":"f"}}]`},
		{`[{"function":{"arguments":"{"}}]`, `[{"index":0,"function":{"arguments":"{"}}]`},
		{`[{"id":"a","function":{"arguments":"}"}}]`, `[{"index":0,"id":"a","function":{"arguments":"}"}}]`},
		{`[{"id":"b","index":null},{"id":"c","index":"x"}]`, `[{"id":"b","index":1},{"id":"c","index":2}]`},
		{`[{"function":{"name":"g"}}, {}]`, `[{"index":3,"function":{"name":"g"}}, {"index":3}]`},
		{`[{"index":7,"id":"d"}]`, `[{"index":7,"id":"d"}]`},
		{`[{"id":"e"}]`, `[{"index":8,"id":"e"}]`},
	} {
		wrap := func(calls string) string {
			return `{"id":"x", "choices":[ {"index":0,"delta":{"role":"assistant","tool_calls":` + calls + `}}]}`
		}
		got, _ := m.Mend([]byte(wrap(step.calls)), peek(t, wrap(step.calls)))
		if string(got) != wrap(step.want) {
			t.Errorf("step %d:\n got %s\nwant %s", i, got, wrap(step.want))
		}
	}
}

// A server that numbers every call 0 means another one when it names another; parts without an id belong to the last.
func TestMendToolIndexThatIsTaken(t *testing.T) {
	t.Parallel()
	m := Mender{Request: "r"}
	for i, step := range []struct{ calls, want string }{
		{`[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]`, `[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]`},
		{`[{"index":0,"function":{"arguments":"{}"}}]`, `[{"index":0,"function":{"arguments":"{}"}}]`},
		{`[{"index":0,"id":"b","function":{"name":"f","arguments":""}}]`, `[{"index":1,"id":"b","function":{"name":"f","arguments":""}}]`},
		{`[{"index":0,"function":{"arguments":"{}"}}]`, `[{"index":1,"function":{"arguments":"{}"}}]`},
		{`[{"index":0,"id":"other","function":{"arguments":"}"}}]`, `[{"index":1,"id":"other","function":{"arguments":"}"}}]`}, // an id alone is no other call
		{`[{"index":1,"id":"c","function":{"name":"g"}}]`, `[{"index":2,"id":"c","function":{"name":"g"}}]`},
		{`[{"index":5,"id":"","function":{"name":"g"}}]`, `[{"index":5,"id":"call_r_5","function":{"name":"g"}}]`},
	} {
		wrap := func(calls string) string {
			return `{"choices":[{"index":0,"delta":{"role":"assistant","tool_calls":` + calls + `}}]}`
		}
		c := peek(t, wrap(step.calls))
		got, _ := m.Mend([]byte(wrap(step.calls)), c)
		if string(got) != wrap(step.want) || c.Choices[0].ToolCalls != step.want {
			t.Errorf("step %d:\n got %s\nwant %s\nsays %s", i, got, wrap(step.want), c.Choices[0].ToolCalls)
		}
	}
}

// At the limit of calls that are kept in mind a call is passed on as it is.
func TestMendManyCalls(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range maxToolCalls + 1 {
		all = append(all, fmt.Sprintf(`{"id":"%d"}`, i))
	}
	in := `{"choices":[{"index":0,"delta":{"role":"assistant","tool_calls":[` + strings.Join(all, ",") + `]}}]}`
	var m Mender
	got, _ := m.Mend([]byte(in), peek(t, in))
	calls := gjson.GetBytes(got, "choices.0.delta.tool_calls").Array()
	if last := calls[maxToolCalls-1].Get("index"); last.Int() != maxToolCalls-1 || calls[maxToolCalls].Get("index").Exists() {
		t.Errorf("the last calls are %s and %s", calls[maxToolCalls-1], calls[maxToolCalls])
	}
}

func TestToUTF8(t *testing.T) {
	t.Parallel()
	if got := ToUTF8([]byte("a\xffb")); string(got) != "a\uFFFDb" {
		t.Errorf("got %q", got)
	}
}

func FuzzMend(f *testing.F) {
	for _, seed := range []string{
		`{"choices":[{"index":0,"delta":{"content":"a"}}]}`, `{"error":null}`, `{"choices":null,"id":1,"id":2}`, "{\n}", `{"error":"","choices":7}`,
		`{"choices":[{"delta":{"tool_calls":[{},{"index":null},{"id":"x"}]}}]}`, `{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}},{"index":0,"id":"b","function":{"name":"f"}}]},"finish_reason":"stop"}]}`,
		`{"choices":[{"message":{"tool_calls":[{"id":"","function":{"name":"f"}}]},"finish_reason":"content_filter: X"}]}`, `{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}],"tool_calls":[{},{}]}}]}`,
		`{"choices":[{"index":-1}],"choices":[]}`, `{"model":"x","created":1,"error":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = ToUTF8(data)
		var c Chunk
		if c.Peek(data) != nil {
			return
		}
		in := bytes.Clone(data)
		for _, m := range []Mender{{}, {DropUsage: true, Model: "public"}, {As: &Origin{ID: `"o"`, Created: "1", Model: `"m"`}}, {Request: "r"}} {
			var c Chunk
			if err := c.Peek(data); err != nil {
				t.Fatal(err)
			}
			out, keep := m.Mend(data, &c)
			if !bytes.Equal(in, data) {
				t.Fatalf("the input was changed to %q", data)
			}
			if !keep {
				continue
			}
			if !gjson.ValidBytes(out) || bytes.ContainsAny(out, "\r\n") {
				t.Fatalf("%q became %q", data, out)
			}
			var again Chunk
			if err := again.Peek(out); err != nil {
				t.Fatalf("%q became %q: %v", data, out, err)
			}
			for i := range again.Choices {
				if m.said && (again.Choices[i].ToolCalls != c.Choices[i].ToolCalls || again.Choices[i].Finish != c.Choices[i].Finish) {
					t.Fatalf("%q says something else than %+v", out, c.Choices[i])
				}
			}
		}
		var a Answer
		a.Add(&c)
		if out := a.Encode(nil); !gjson.ValidBytes(out) {
			t.Fatalf("assembled %q", out)
		}
	})
}
