// Package ollamatest has an Ollama server that samples, for tests of what calls one.
package ollamatest

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

	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// Dials say how an [Engine] answers one request. The zero value answers whole.
type Dials struct {
	Cut    int  // break the connection after that many lines of text; 0 = never
	Stall  bool // stay silent instead
	Closed bool // the model's template ends the last message, so that the answer begins again
	Words  int  // tokens of an answer; default 8
	Thinks bool // before the answer
	Greedy bool // say the first answer again
}

// Engine is Ollama's POST /api/chat. It samples, and goes on with a last message of the assistant, as it does with every
// model whose template leaves that message open. The n-th answer is that of [openaitest.Engine].
type Engine struct {
	URL string

	mu       sync.Mutex
	dials    []Dials
	answers  int
	requests []string
}

// NewEngine starts an engine that is stopped with the test. Each request takes the next of dials, the last one is used again.
func NewEngine(t testing.TB, dials ...Dials) *Engine {
	t.Helper()
	if len(dials) == 0 {
		dials = []Dials{{}}
	}
	e := &Engine{dials: dials}
	server := httptest.NewServer(e)
	e.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return e
}

// Requests lists the bodies that the engine was sent so far.
func (e *Engine) Requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// request is what the engine reads of a body.
type request struct {
	Messages []struct{ Role, Content string }
	Options  struct {
		Limit *int `json:"num_predict"`
	}
}

// ServeHTTP answers as the dials say.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var asked request
	if err := json.Unmarshal(body, &asked); err != nil || len(asked.Messages) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid request"}`)
		return
	}
	e.mu.Lock()
	d := e.dials[min(len(e.requests), len(e.dials)-1)]
	e.requests = append(e.requests, string(body))
	last := asked.Messages[len(asked.Messages)-1]
	answer, from, goesOn := 0, 0, false
	if last.Role == "assistant" && !d.Closed {
		answer, from, goesOn = openaitest.Begun(last.Content)
	}
	if !goesOn {
		if !d.Greedy || e.answers == 0 {
			e.answers++
		}
		answer, from = e.answers, 0
	}
	e.mu.Unlock()
	if d.Words == 0 {
		d.Words = 8
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	stream(w, r, d, asked, answer, from)
}

// stream says an answer from a token on, each in a line.
func stream(w http.ResponseWriter, r *http.Request, d Dials, asked request, answer, from int) {
	control := http.NewResponseController(w)
	send := func(message any, members string) bool {
		content, _ := json.Marshal(message) // strings can be encoded
		_, err := fmt.Fprintf(w, `{"model":"m","created_at":"2026-11-26T10:00:0%dZ","message":%s,%s}`+"\n", answer%10, content, members)
		return err == nil && control.Flush() == nil
	}
	type said struct {
		Role     string `json:"role"`
		Content  string `json:"content"`
		Thinking string `json:"thinking,omitempty"`
	}
	if d.Thinks {
		send(said{Role: "assistant", Thinking: "Hm "}, `"done":false`)
	}
	prompt := from
	for _, m := range asked.Messages {
		if m.Role != "assistant" {
			prompt += len(m.Content)
		}
	}
	last, reason := d.Words, "stop"
	if limit := asked.Options.Limit; limit != nil && from+*limit < last {
		last, reason = from+*limit, "length"
	}
	for i := from; i < last; i++ {
		if d.Cut > 0 && i-from == d.Cut {
			if d.Stall {
				<-r.Context().Done()
				return
			}
			panic(http.ErrAbortHandler)
		}
		text := strings.TrimPrefix(openaitest.EngineText(answer, i+1), openaitest.EngineText(answer, i))
		if i == from && from > 0 {
			text = " " + text // which was not given to it
		}
		if !send(said{Role: "assistant", Content: text}, `"done":false`) {
			return
		}
	}
	send(said{Role: "assistant"}, fmt.Sprintf(`"done":true,"done_reason":%q,"prompt_eval_count":%d,"eval_count":%d`, reason, prompt, last-from))
}
