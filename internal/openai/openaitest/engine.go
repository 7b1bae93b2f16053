package openaitest

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
	"time"
)

// EngineDials say how an [Engine] answers one request. The zero value answers whole.
type EngineDials struct {
	Words  int           // of an answer; default 8
	Pace   time.Duration // between tokens
	Cut    int           // break the connection after that many tokens; 0 = never
	Stall  int           // stay silent after that many tokens; 0 = never
	Hold   bool          // stay silent before the first token
	Mute   bool          // stay silent before anything
	Reject bool          // refuse to go on with an answer, as servers do that do not know how to
	Forget bool          // begin again instead of going on, as servers do that ignore what they do not know
}

// Engine is a model server like vLLM: it samples, so that no two answers are the same, tells token ids, and goes on with an
// answer from its ids or its text. It holds what it is given against what it said, and refuses what is not that exactly.
//
// Its n-th answer is "n0 n1 n2 né n4 …"; the é is two tokens, of which the first has no text yet.
type Engine struct {
	URL string // with /v1

	server *httptest.Server
	gone   chan struct{}

	mu       sync.Mutex
	dials    []EngineDials
	answers  int // begun so far
	requests []Request
	faults   []string
}

// NewEngine starts an engine that is stopped with the test. Each request takes the next of dials, the last one is used again.
func NewEngine(t testing.TB, dials ...EngineDials) *Engine {
	t.Helper()
	if len(dials) == 0 {
		dials = []EngineDials{{}}
	}
	e := &Engine{dials: dials, gone: make(chan struct{}, 100)}
	e.server = httptest.NewServer(e)
	e.URL = e.server.URL + "/v1"
	t.Cleanup(func() {
		e.server.CloseClientConnections()
		e.server.Close()
	})
	return e
}

// Gone gets a value when a caller leaves before its answer is whole.
func (e *Engine) Gone() <-chan struct{} { return e.gone }

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

// engineRequest is what the engine reads of a body.
type engineRequest struct {
	Stream   bool
	Messages []struct{ Role, Content string }
	Prompt   json.RawMessage

	MaxTokens           *int  `json:"max_tokens"`
	MaxCompletionTokens *int  `json:"max_completion_tokens"`
	ReturnTokenIDs      bool  `json:"return_token_ids"`
	AddSpecialTokens    *bool `json:"add_special_tokens"`
	AddGenerationPrompt *bool `json:"add_generation_prompt"`
	ContinueFinal       bool  `json:"continue_final_message"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
		Continuous   bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`
}

// engineRun is one answer, or the rest of one.
type engineRun struct {
	engineRequest
	dials  EngineDials
	chat   bool
	number int // of the answer
	from   int // its first token that is still to come
	prompt []int

	trimmed bool // what was said so far came without its last space
}

// token is the text and the id of a token of the n-th answer.
func token(n, i int) (text string, id int) {
	switch i {
	case 3:
		return "", 1000*n + i // the first half of é
	case 4:
		return fmt.Sprintf("%c\u00e9 ", 'a'+n-1), 1000*n + i
	}
	return fmt.Sprintf("%c%d ", 'a'+n-1, i), 1000*n + i
}

// EngineText is what the n-th answer says in that many tokens.
func EngineText(n, tokens int) string {
	var all strings.Builder
	for i := range tokens {
		text, _ := token(n, i)
		all.WriteString(text)
	}
	return all.String()
}

func promptIDs(text string) (ids []int) {
	for _, b := range []byte(text) {
		ids = append(ids, int(b))
	}
	return ids
}

// ServeHTTP answers as the dials say.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	d := e.dials[min(len(e.requests), len(e.dials)-1)]
	e.requests = append(e.requests, Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)})
	e.mu.Unlock()
	if d.Words == 0 {
		d.Words = 8
	}
	run := &engineRun{dials: d, chat: r.URL.Path == "/v1/chat/completions"}
	err := json.Unmarshal(body, &run.engineRequest)
	if err == nil {
		err = e.begin(run)
	}
	if err != nil {
		e.mu.Lock()
		e.faults = append(e.faults, err.Error())
		e.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"message":%q,"type":"BadRequestError"}}`, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	e.stream(w, r, run)
}

// begin finds out what is to be said from where.
func (e *Engine) begin(run *engineRun) error {
	if run.chat {
		return e.beginChat(run)
	}
	var ids []int
	if err := json.Unmarshal(run.Prompt, &ids); err != nil {
		var text string
		if err := json.Unmarshal(run.Prompt, &text); err != nil {
			return err
		}
		if begun := strings.LastIndexByte(text, '|') + 1; begun > 0 && begun < len(text) {
			run.prompt = promptIDs(text[:begun])
			return e.goOn(run, text[begun:])
		}
		run.prompt = promptIDs(text)
		return e.fresh(run)
	}
	said := slices.IndexFunc(ids, func(id int) bool { return id >= 1000 })
	switch {
	case run.AddSpecialTokens == nil || *run.AddSpecialTokens:
		return fmt.Errorf("the ids would get special tokens")
	case said < 0:
		run.prompt = ids
		return e.fresh(run)
	case run.dials.Reject:
		return fmt.Errorf("this server takes no token ids")
	}
	run.prompt, run.number, run.from = ids[:said], ids[said]/1000, len(ids)-said
	for i, id := range ids[said:] {
		if _, want := token(run.number, i); id != want {
			return fmt.Errorf("token %d of the answer is %d, want %d", i, id, want)
		}
	}
	return nil
}

func (e *Engine) beginChat(run *engineRun) error {
	last := run.Messages[len(run.Messages)-1]
	for _, m := range run.Messages {
		if m.Role != "assistant" {
			run.prompt = append(run.prompt, promptIDs(m.Content)...)
		}
	}
	if !run.ContinueFinal {
		return e.fresh(run)
	}
	if last.Role != "assistant" || run.AddGenerationPrompt == nil || *run.AddGenerationPrompt {
		return fmt.Errorf("continue_final_message without a final message of the assistant, or with a generation prompt")
	}
	return e.goOn(run, last.Content)
}

func (e *Engine) fresh(run *engineRun) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers++
	run.number = e.answers
	return nil
}

// goOn goes on from a text, which a template has trimmed.
func (e *Engine) goOn(run *engineRun, text string) error {
	switch {
	case run.dials.Reject:
		return fmt.Errorf("this model does not support assistant message prefill")
	case run.dials.Forget:
		return e.fresh(run)
	case strings.TrimSpace(text) != text:
		return fmt.Errorf("substring not found")
	}
	number, from, ok := Begun(text)
	if !ok {
		return fmt.Errorf("%q is not the beginning of an answer", text)
	}
	run.number, run.from, run.trimmed = number, from, true
	return nil
}

// Begun finds out of which answer a text is the beginning, but for white space, and how many tokens it has.
func Begun(text string) (answer, tokens int, ok bool) {
	if text == "" || text[0] < 'a' {
		return 0, 0, false
	}
	answer = int(text[0]-'a') + 1
	for n := range 1000 {
		if strings.TrimSpace(EngineText(answer, n)) == strings.TrimSpace(text) {
			return answer, n, true
		}
	}
	return 0, 0, false
}

func (e *Engine) stream(w http.ResponseWriter, r *http.Request, run *engineRun) {
	control := http.NewResponseController(w)
	send := func(data string) bool {
		_, err := io.WriteString(w, "data: "+data+"\n\n")
		if err == nil {
			err = control.Flush()
		}
		return err == nil && r.Context().Err() == nil
	}
	silent := func() {
		<-r.Context().Done()
		e.gone <- struct{}{}
	}
	if run.dials.Mute {
		silent()
		return
	}
	if run.chat {
		send(run.event(`"delta":{"role":"assistant","content":""}`, "null", "", 0, run.prompt))
	}
	if run.dials.Hold {
		silent()
		return
	}
	said, finish := 0, `"stop"`
	for i := run.from; i < run.dials.Words; i++ {
		switch limit := run.limit(); {
		case run.dials.Cut > 0 && said == run.dials.Cut:
			panic(http.ErrAbortHandler)
		case run.dials.Stall > 0 && said == run.dials.Stall:
			silent()
			return
		case limit > 0 && said == limit:
			finish = `"length"`
			i = run.dials.Words
			continue
		case run.dials.Pace > 0:
			time.Sleep(run.dials.Pace)
		}
		text, id := token(run.number, i)
		if i == run.from && run.trimmed {
			text = " " + text // the white space that the template cut off
		}
		var prompt []int
		if said++; said == 1 && !run.chat {
			prompt = run.prompt
		}
		if !send(run.event(run.delta(text), "null", fmt.Sprint(id), said, prompt)) {
			e.gone <- struct{}{}
			return
		}
	}
	send(run.event(run.delta(""), finish, "", said, nil))
	if run.StreamOptions.IncludeUsage {
		send(fmt.Sprintf(`{"id":"run-%d","object":"x","created":%d,"model":"m","choices":[],"usage":%s}`, run.number, run.number, run.usage(said)))
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func (r *engineRun) limit() int {
	switch {
	case r.MaxCompletionTokens != nil:
		return *r.MaxCompletionTokens
	case r.MaxTokens != nil:
		return *r.MaxTokens
	}
	return 0
}

func (r *engineRun) delta(text string) string {
	if r.chat {
		return fmt.Sprintf(`"delta":{"content":%q}`, text)
	}
	return fmt.Sprintf(`"text":%q`, text)
}

func (r *engineRun) usage(said int) string {
	prompt := len(r.prompt) + r.from
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, said, prompt+said)
}

func (r *engineRun) event(delta, finish, id string, said int, prompt []int) string {
	choice := `{"index":0,` + delta + `,"logprobs":null,"finish_reason":` + finish
	tail := ""
	if r.StreamOptions.Continuous {
		tail += `,"usage":` + r.usage(said)
	}
	if r.ReturnTokenIDs {
		choice += `,"token_ids":[` + id + `]`
		ids, _ := json.Marshal(prompt)
		switch {
		case prompt != nil && r.chat:
			tail += `,"prompt_token_ids":` + string(ids)
		case prompt != nil:
			choice += `,"prompt_token_ids":` + string(ids)
		}
	}
	return fmt.Sprintf(`{"id":"run-%d","object":"x","created":%d,"model":"m","choices":[%s}]%s}`, r.number, r.number, choice, tail)
}
