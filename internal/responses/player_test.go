package responses

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

var began = time.Unix(1764000000, 999_999_000)

func parse(t testing.TB, body string) *Request {
	t.Helper()
	r, err := Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func appendFrame(t testing.TB, p *Player, dst []byte, f *schemas.Frame) []byte {
	t.Helper()
	dst, err := p.Append(dst, f)
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// one puts every chunk in a frame of its own.
func one(int) int { return 1 }

// framesOf is a chain of the chunks: size says how many of those that are left go into the next frame.
func framesOf(chunks []string, ending *schemas.Frame, size func(left int) int) []*schemas.Frame {
	chain := []*schemas.Frame{{Kind: schemas.KindAccepted, Time: began}, startFrame(1)}
	index := uint64(0)
	for len(chunks) > 0 {
		n := size(len(chunks))
		f := &schemas.Frame{Kind: schemas.KindDelta, Index: index, Count: n, Data: []byte(strings.Join(chunks[:n], "\n"))}
		chain, chunks, index = append(chain, f), chunks[n:], f.Next()
	}
	last := *ending
	last.Index = index
	return append(chain, &last)
}

func startFrame(attempt int) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindStart, Attempt: attempt, Time: began.Add(time.Minute), Start: &schemas.Start{Accepted: began}}
}

// play gives the events behind after, and the response at the end.
func play(t testing.TB, r *Request, chain []*schemas.Frame, after int64) (events, response string) {
	t.Helper()
	p := NewPlayer("r1", r, after)
	var out []byte
	for _, f := range chain {
		out = appendFrame(t, p, out, f)
	}
	return string(out), string(p.AppendResponse(nil))
}

// TestEventsDoNotDependOnFrames cuts random answers into frames and attempts in random ways: the events stay the same,
// and those behind any of them are the rest.
func TestEventsDoNotDependOnFrames(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		r := parse(t, randomBody(random))
		chunks, ending := randomAnswer(random)
		want, response := play(t, r, framesOf(chunks, ending, one), FromStart)
		check(t, want)
		for range 5 {
			chain := framesOf(chunks, ending, func(left int) int { return 1 + random.IntN(left) })
			chain = disturb(random, chain)
			got, gotResponse := play(t, r, chain, FromStart)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d: events:\n%s", seed, diff)
			}
			if diff := cmp.Diff(response, gotResponse); diff != "" {
				t.Fatalf("seed %d: response:\n%s", seed, diff)
			}
		}
		list := strings.SplitAfter(want, "\n\n")
		list = list[:len(list)-1]
		for after := range list {
			chain := framesOf(chunks, ending, func(left int) int { return 1 + random.IntN(left) })
			if got, _ := play(t, r, chain, int64(after)); got != strings.Join(list[after+1:], "") {
				t.Fatalf("seed %d: behind %d: %s", seed, after, got)
			}
		}
	}
}

// disturb adds what the life of a request adds to its chain without saying anything: attempts, and a worker that handed
// the request back. Or it leaves out the frame that says that it was accepted.
func disturb(random *rand.Rand, chain []*schemas.Frame) []*schemas.Frame {
	if random.IntN(2) == 0 {
		chain = chain[1:]
	}
	at := 1 + random.IntN(len(chain)-1)
	more := []*schemas.Frame{{Kind: schemas.KindDelta, Index: chain[at].Index}, startFrame(2)}
	if at == 1 && chain[0].Kind == schemas.KindAccepted {
		more = more[1:]
	}
	return append(append(append([]*schemas.Frame{}, chain[:at]...), more...), chain[at:]...)
}

func randomBody(random *rand.Rand) string {
	return fmt.Sprintf(`{"model":"m","input":"hi","background":%t,"reasoning":{"summary":%s},"tools":[{"type":"function",`+"\n"+`"name":"f"}]}`,
		random.IntN(2) == 0, []string{"null", `"auto"`}[random.IntN(2)])
}

// randomAnswer is chunks of every kind in any order, and an ending.
func randomAnswer(random *rand.Rand) (chunks []string, ending *schemas.Frame) {
	choice := func(delta string, finish string) string {
		return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`, delta, finish)
	}
	chunks = append(chunks, choice(`{"role":"assistant","content":""}`, "null"))
	for range random.IntN(30) {
		call := random.IntN(3)
		chunks = append(chunks, choice([]string{
			`{"content":"wörd \"\u2028 "}`, `{"content":"more"}`, `{"content":"more"}`, `{"reasoning_content":"hm"}`, `{"refusal":"no"}`,
			fmt.Sprintf(`{"tool_calls":[{"index":%d,"id":"call_%d","type":"function","function":{"name":"f","arguments":"{\"a\":"}}]}`, call, call),
			fmt.Sprintf(`{"tool_calls":[{"index":%d,"function":{"arguments":"1}"}}]}`, call),
			`{}`,
		}[random.IntN(8)], "null"))
	}
	if random.IntN(4) == 0 {
		e := schemas.Errorf(schemas.CodeUpstreamInterrupted, "cut")
		if random.IntN(2) == 0 {
			e = schemas.Errorf(schemas.CodeCancelled, "stopped")
		}
		return chunks, &schemas.Frame{Kind: schemas.KindError, Data: e.Encode()}
	}
	chunks = append(chunks, choice(`{}`, []string{`"stop"`, `"length"`, `"content_filter"`, `"tool_calls"`}[random.IntN(4)]))
	chunks = append(chunks, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`)
	return chunks, &schemas.Frame{Kind: schemas.KindEnd}
}

// check fails the test unless the events hold together as a reader puts them together: the numbers run from 0, each is
// JSON on one line under its own name, and the items that they open and fill are those of the last response.
func check(t *testing.T, events string) {
	t.Helper()
	texts, items := map[string]string{}, map[int64]string{}
	var last gjson.Result
	for i, event := range strings.Split(strings.TrimSuffix(events, "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(event, "\ndata: ")
		if !ok || strings.Contains(data, "\n") || !json.Valid([]byte(data)) {
			t.Fatalf("event %d is not a name and a line of JSON: %s", i, event)
		}
		last = gjson.Parse(data)
		kind := last.Get("type").Str
		if last.Get("sequence_number").Int() != int64(i) || name != "event: "+kind {
			t.Fatalf("event %d: %s", i, event)
		}
		index := last.Get("output_index").Int()
		key := fmt.Sprintf("%d/%s", index, last.Get("content_index").Raw+last.Get("summary_index").Raw)
		switch {
		case kind == "response.output_item.added":
			if _, there := items[index]; there || int(index) != len(items) {
				t.Fatalf("event %d opens item %d after %d items", i, index, len(items))
			}
			items[index] = last.Get("item.id").Str
		case strings.HasSuffix(kind, ".delta"):
			texts[key] += last.Get("delta").Str
		case strings.HasSuffix(kind, "_text.done"), kind == "response.refusal.done", kind == "response.function_call_arguments.done":
			if got := last.Get("text").Str + last.Get("refusal").Str + last.Get("arguments").Str; got != texts[key] {
				t.Fatalf("event %d says %q after %q", i, got, texts[key])
			}
			delete(texts, key)
		}
		if id := last.Get("item_id"); id.Exists() && id.Str != items[index] {
			t.Fatalf("event %d is about %s, item %d is %s", i, id.Str, index, items[index])
		}
	}
	response := last.Get("response")
	if status := response.Get("status").Str; (status == "completed" || status == "incomplete") && len(texts) > 0 {
		t.Fatalf("%d texts are never done in a response that is %s", len(texts), status)
	}
	if got := len(response.Get("output").Array()); got != len(items) {
		t.Fatalf("the response has %d items, %d were opened", got, len(items))
	}
	for i, item := range response.Get("output").Array() {
		if item.Get("id").Str != items[int64(i)] || item.Get("status").Str == "in_progress" {
			t.Fatalf("item %d of a response that has ended: %s", i, item.Raw)
		}
	}
}

// A whole response as one event stands for its chunks.
func TestUnaryAnswer(t *testing.T) {
	t.Parallel()
	answer := `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`
	chain := []*schemas.Frame{startFrame(1), {Kind: schemas.KindEnd, Count: 1, Data: []byte(answer)}}
	events, response := play(t, parse(t, `{"model":"m","input":"x"}`), chain, FromStart)
	check(t, events)
	for _, part := range []string{`"status":"completed"`, `"text":"hi"`, `"call_id":"call_1"`, `"total_tokens":3`} {
		if !strings.Contains(response, part) {
			t.Errorf("no %s in %s", part, response)
		}
	}
}

// Servers differ in how they tell one tool call from the next.
func TestToolCallsAsServersSendThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deltas []string
		want   string // name, arguments
	}{
		"one place, ids":             {[]string{`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`, `{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}`}, "f{} g{}"},
		"one place, no ids":          {[]string{`{"index":0,"function":{"name":"f","arguments":"{}"}}`, `{"index":0,"function":{"name":"g","arguments":"{}"}}`}, "f{} g{}"},
		"no places":                  {[]string{`{"id":"a","function":{"name":"f","arguments":"{}"}}`, `{"id":"b","function":{"name":"g","arguments":"{}"}}`}, "f{} g{}"},
		"the id again and again":     {[]string{`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}`, `{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}`}, "f{}"},
		"the name later":             {[]string{`{"index":0,"id":"a","function":{}}`, `{"index":0,"function":{"name":"f","arguments":"{}"}}`}, "f{}"},
		"no arguments":               {[]string{`{"index":0,"id":"a","function":{"name":"f"}}`}, "f"},
		"nested deeper than a stack": {[]string{`{"index":0,"id":"a","function":{"name":"f","arguments":"` + strings.Repeat("{[", 1<<20) + `"}}`, `{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}`}, "f" + strings.Repeat("{[", 1<<20) + " g{}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var chunks []string
			for _, delta := range c.deltas {
				chunks = append(chunks, `{"choices":[{"index":0,"delta":{"tool_calls":[`+delta+`]}}]}`)
			}
			events, response := play(t, parse(t, `{"model":"m","input":"x"}`), framesOf(chunks, &schemas.Frame{Kind: schemas.KindEnd}, one), FromStart)
			check(t, events)
			var got []string
			for _, item := range gjson.Get(response, "output").Array() {
				got = append(got, item.Get("name").Str+item.Get("arguments").Str)
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %.200s, want %.200s", text, c.want)
			}
		})
	}
}

func TestFrameThatIsNoChunk(t *testing.T) {
	t.Parallel()
	p := NewPlayer("r1", parse(t, `{"model":"m","input":"x"}`), FromStart)
	_, err := p.Append(nil, &schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: []byte("not JSON")})
	if err == nil || strings.Contains(err.Error(), "not JSON\n") {
		t.Errorf("got %v", err)
	}
}

func TestErrorEvent(t *testing.T) {
	t.Parallel()
	p := NewPlayer("r1", parse(t, `{"model":"m","input":"x"}`), FromStart)
	appendFrame(t, p, nil, startFrame(1))
	got := string(p.AppendError(nil, schemas.Errorf(schemas.CodeStreamExpired, "line\nbreak").WithParam("p")))
	want := `event: error` + "\n" + `data: {"type":"error","sequence_number":1,"code":"stream_expired","message":"line\nbreak","param":"p"}` + "\n\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The events of a delta cost no more than the text that is remembered.
func BenchmarkDelta(b *testing.B) {
	b.ReportAllocs()
	p := NewPlayer("r1", parse(b, `{"model":"m","input":"x"}`), FromStart)
	delta := []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"m","choices":[{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":null}]}`)
	f := &schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: delta}
	out := make([]byte, 0, 1<<12)
	for b.Loop() {
		var err error
		if out, err = p.Append(out[:0], f); err != nil || !bytes.Contains(out, []byte("delta")) {
			b.Fatal(err)
		}
	}
}

// What the door does with a body: it is checked, read and converted.
func BenchmarkRequest(b *testing.B) {
	b.ReportAllocs()
	body := []byte(`{"model":"m","stream":true,"instructions":"be brief","input":[` + strings.TrimSuffix(strings.Repeat(`{"role":"user","content":[{"type":"input_text","text":"`+strings.Repeat("word ", 60)+`"}]},`, 5), ",") + `]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := toChat(body); err != nil {
			b.Fatal(err)
		}
	}
}
