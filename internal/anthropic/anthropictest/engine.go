package anthropictest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// EngineDials say how an [Engine] answers one request. The zero value answers whole.
type EngineDials struct {
	Words  int    // tokens of an answer; default 8
	Cut    int    // break the connection after that many events of text; 0 = never
	Stall  bool   // stay silent instead
	At     string // break the connection behind the first event of this type instead
	Reject bool   // refuse a last turn of the assistant, as models from Claude 4.6 on do
	Forget bool   // begin again instead of going on
	Greedy bool   // say the first answer again
	Thinks bool   // before the answer, in a block with a signature
	Calls  bool   // a tool after the answer
	Closed bool   // end the block that was given to it and go on in a second one
}

// Engine is a server of the Messages protocol that samples, so that no two answers are the same, and that goes on with an
// answer from a last turn of the assistant. It refuses what the protocol refuses: such a turn with white space at its end, or
// beside thinking. Events of text hold two tokens; the n-th answer is that of [openaitest.Engine].
type Engine struct {
	URL string // with /v1

	mu       sync.Mutex
	dials    []EngineDials
	answers  int
	requests []Request
	faults   []string
}

// NewEngine starts an engine that is stopped with the test. Each request takes the next of dials, the last one is used again.
func NewEngine(t testing.TB, dials ...EngineDials) *Engine {
	t.Helper()
	if len(dials) == 0 {
		dials = []EngineDials{{}}
	}
	e := &Engine{dials: dials}
	server := httptest.NewServer(e)
	e.URL = server.URL + "/v1"
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return e
}

// Requests lists what the engine was asked so far.
func (e *Engine) Requests() []Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// Faults lists what was wrong with the requests so far.
func (e *Engine) Faults() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.faults)
}

// ServeHTTP answers as the dials say.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	run := &engineRun{EngineDials: e.dials[min(len(e.requests), len(e.dials)-1)], call: len(e.requests) + 1}
	e.requests = append(e.requests, Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)})
	err := e.begin(run, gjson.ParseBytes(body))
	if err != nil {
		e.faults = append(e.faults, err.Error())
	}
	e.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"type":"error","error":{"type":"invalid_request_error","message":%q}}`, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	run.stream(w, r)
}

// begin finds out what is to be said from where. The caller holds mu.
func (e *Engine) begin(run *engineRun, body gjson.Result) error {
	if run.limit = int(body.Get("max_tokens").Int()); run.limit < 1 {
		return fmt.Errorf("max_tokens: Field required")
	}
	begun := ""
	for _, turn := range body.Get("messages").Array() {
		if begun = ""; turn.Get("role").Str == "assistant" {
			begun = text(turn.Get("content"))
			continue
		}
		run.prompt += len(text(turn.Get("content")))
	}
	if run.Words == 0 {
		run.Words = 8
	}
	switch {
	case begun == "" || run.Forget:
		if !run.Greedy || e.answers == 0 {
			e.answers++
		}
		run.answer = e.answers
		return nil
	case run.Reject:
		return fmt.Errorf("this model does not support assistant message prefill: the conversation must end with a user message")
	case body.Get("thinking.type").Str == "enabled":
		return fmt.Errorf("messages: Expected `thinking`, but found `text`: a final assistant message must start with a thinking block")
	case strings.TrimSpace(begun) != begun:
		return fmt.Errorf("messages: final assistant content cannot end with trailing whitespace")
	}
	var ok bool
	if run.answer, run.from, ok = openaitest.Begun(begun); !ok {
		return fmt.Errorf("%q is not the beginning of an answer", begun)
	}
	return nil
}

// text of a turn, whose content is text or blocks of it.
func text(content gjson.Result) (all string) {
	if content.Type == gjson.String {
		return content.Str
	}
	for _, block := range content.Array() {
		all += block.Get("text").Str
	}
	return all
}

// engineRun is one answer, or the rest of one.
type engineRun struct {
	EngineDials
	call, answer, from, limit, prompt int
}

func (r *engineRun) stream(w http.ResponseWriter, request *http.Request) {
	control := http.NewResponseController(w)
	for _, event := range r.events() {
		if _, err := io.WriteString(w, frame(event)); err != nil || control.Flush() != nil {
			return
		}
		if r.At != "" && gjson.Get(event, "type").Str == r.At {
			panic(http.ErrAbortHandler)
		}
		if gjson.Get(event, "delta.type").Str != "text_delta" {
			continue
		}
		if r.Cut--; r.Cut == 0 && r.Stall {
			<-request.Context().Done()
			return
		} else if r.Cut == 0 {
			panic(http.ErrAbortHandler)
		}
	}
}

func (r *engineRun) events() []string {
	index, all := 0, []string{fmt.Sprintf(`{"type":"message_start","message":{"id":"msg_%d","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":1}}}`, r.call, r.prompt+r.from-1)}
	if r.Thinks {
		all = append(all, Thinking(index, fmt.Sprintf("signature of call %d", r.call), "Hm ")...)
		index++
	}
	last, stop := r.Words, "end_turn"
	if r.from+r.limit < last {
		last, stop = r.from+r.limit, "max_tokens"
	}
	var pieces []string
	for i := r.from; i < last; i += 2 {
		pieces = append(pieces, openaitest.EngineText(r.answer, min(i+2, last))[len(openaitest.EngineText(r.answer, i)):])
	}
	if r.from > 0 && len(pieces) > 0 {
		pieces[0] = " " + pieces[0] // which was not given to it
	}
	if r.Closed && len(pieces) > 1 {
		all = append(all, Text(index, pieces[0])...)
		pieces = pieces[1:]
		index++
	}
	if len(pieces) > 0 {
		all = append(all, Text(index, pieces...)...)
		index++
	}
	if r.Calls {
		all, stop = append(all, Tool(index, fmt.Sprintf("toolu_%d", r.call), "f", `{"a"`, `:1}`)...), "tool_use"
	}
	delta, _ := json.Marshal(map[string]any{
		"type": "message_delta", "delta": map[string]any{"stop_reason": stop, "stop_sequence": nil}, "usage": map[string]any{"output_tokens": last - r.from},
	})
	return append(all, string(delta), `{"type":"message_stop"}`)
}
