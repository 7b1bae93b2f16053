package backendtest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// request is the suite's question, with more members for its body.
func (s Subject) request(streamed bool, members ...string) *inference.GenerateRequest {
	op, question := s.Op, `"messages":[{"role":"user","content":"Hello world"}]`
	switch op {
	case "":
		op = schemas.OpChat
	case schemas.OpCompletion:
		question = `"prompt":"Hello world"`
	case schemas.OpMessages:
		question += `,"max_tokens":1000`
	}
	if streamed {
		members = append(members, `"stream":true`)
	}
	body := "{" + strings.Join(append([]string{`"model":"m"`, question}, members...), ",") + "}"
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: op, Body: []byte(body), Stream: streamed, Attempt: 1, Try: 1,
	}
}

// answer is what came of a call.
type answer struct {
	events  []string // that the caller sees
	text    string
	thought string
	tools   []Call
	finish  []string
	usage   []schemas.Usage
	waits   bool // the last event let its receiver wait for more
	err     *schemas.Error
}

// ask runs a call to its end and checks what holds for every event.
func (s Subject) ask(ctx context.Context, t testing.TB, b inference.Backend, r *inference.GenerateRequest, each ...func()) answer {
	t.Helper()
	var a answer
	body := string(r.Body)
	for event, err := range b.Generate(ctx, r) {
		if a.err != nil {
			t.Error("something is yielded after an error")
		}
		if err != nil {
			if a.err = schemas.AsError(err); len(event.Data) > 0 || event.Chunk != nil {
				t.Errorf("an event comes with the error %v", err)
			}
			if strings.Contains(err.Error(), Canary) {
				t.Errorf("the error quotes the server: %v", err)
			}
			continue
		}
		s.read(t, &a, event)
		for _, do := range each {
			do()
		}
	}
	if a.waits && a.err == nil {
		t.Error("the last event promises another")
	}
	if string(r.Body) != body {
		t.Errorf("the request's body was changed to %s", r.Body)
	}
	return a
}

// read notes an event.
func (s Subject) read(t testing.TB, a *answer, event inference.Event) {
	t.Helper()
	if event.Chunk == nil {
		t.Fatal("an event has no chunk")
	}
	a.waits = event.More
	if u := event.Chunk.ParseUsage(); u != nil {
		a.usage = append(a.usage, *u)
	}
	for i := range event.Chunk.Choices {
		o := &event.Chunk.Choices[i]
		a.text += o.Content
		a.thought += o.Reasoning
		a.add(t, o.ToolCalls)
		if o.Finish != "" {
			a.finish = append(a.finish, o.Finish)
		}
	}
	if s.Shown != nil {
		a.text += s.Shown(event)
	}
	if len(event.Data) == 0 {
		return
	}
	a.events = append(a.events, string(event.Data))
	if strings.ContainsAny(string(event.Data), "\r\n") || !gjson.ValidBytes(event.Data) {
		t.Errorf("an event is no line of JSON: %.200q", event.Data)
	}
	if s.Op != schemas.OpMessages {
		s.compare(t, event)
	}
}

// compare holds the chunk against the data that it is to describe.
func (s Subject) compare(t testing.TB, event inference.Event) {
	t.Helper()
	var chunk openai.Chunk
	if err := chunk.Peek(event.Data); err != nil || !chunk.HasChoices() || chunk.Error != "" {
		t.Errorf("this is no chunk (%v): %.200s", err, event.Data)
		return
	}
	if chunk.Model != "m" {
		t.Errorf("the model is not called by its public name: %.200s", event.Data)
	}
	if len(chunk.Choices) != len(event.Chunk.Choices) {
		t.Errorf("the data has %d choices and its chunk %d: %.200s", len(chunk.Choices), len(event.Chunk.Choices), event.Data)
		return
	}
	for i := range chunk.Choices {
		said, told := chunk.Choices[i], event.Chunk.Choices[i]
		if said.Content != told.Content || said.Reasoning != told.Reasoning || said.Finish != told.Finish || (said.ToolCalls == "") != (told.ToolCalls == "") {
			t.Errorf("the data says %.300v, and its chunk %.300v", said, told)
		}
	}
}

// add notes calls of tools, whole or in pieces.
func (a *answer) add(t testing.TB, raw string) {
	t.Helper()
	gjson.Parse(raw).ForEach(func(i, call gjson.Result) bool {
		index := int(i.Int()) // a whole answer has no index
		if given := call.Get("index"); given.Exists() {
			index = int(given.Int())
		}
		switch {
		case index == len(a.tools):
			a.tools = append(a.tools, Call{ID: call.Get("id").Str, Name: call.Get("function.name").Str})
		case index > len(a.tools):
			t.Errorf("tool call %d comes before call %d: %s", index, len(a.tools), raw)
			return false
		}
		to := &a.tools[index]
		if id := call.Get("id").Str; id != "" && id != to.ID {
			t.Errorf("the id of tool call %d changes from %s to %s", index, to.ID, id)
		}
		to.Arguments = append(to.Arguments, call.Get("function.arguments").Str)
		return true
	})
}

// sameArguments reports whether two calls say the same, however they are cut.
func sameArguments(a, b Call) bool {
	var x, y any
	one, two := strings.Join(a.Arguments, ""), strings.Join(b.Arguments, "")
	if json.Unmarshal([]byte(one), &x) != nil || json.Unmarshal([]byte(two), &y) != nil {
		return false
	}
	first, _ := json.Marshal(x) // what was decoded can be encoded
	second, _ := json.Marshal(y)
	return string(first) == string(second)
}

// both runs a check for a streamed and a unary request.
func both(t *testing.T, check func(t *testing.T, streamed bool)) {
	t.Helper()
	for name, streamed := range map[string]bool{"stream": true, "unary": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, streamed)
		})
	}
}
