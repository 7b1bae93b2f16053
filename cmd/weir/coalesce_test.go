package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// pacedModel is a model server that says a word whenever it is let, and is asked once if all goes well.
type pacedModel struct {
	URL   string
	word  chan struct{} // one for each word
	calls atomic.Int32
	left  chan struct{} // gets a value when a caller leaves before the end
}

const pacedWords = 6

func newPacedModel(t *testing.T) *pacedModel {
	t.Helper()
	m := &pacedModel{word: make(chan struct{}, pacedWords), left: make(chan struct{}, 16)}
	server := httptest.NewServer(m)
	m.URL = server.URL + "/v1"
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return m
}

func (m *pacedModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	m.calls.Add(1)
	w.Header().Set("Content-Type", "text/event-stream")
	_ = http.NewResponseController(w).Flush()
	for i := range pacedWords {
		select {
		case <-m.word:
		case <-r.Context().Done():
			m.left <- struct{}{}
			return
		}
		finish := "null"
		if i == pacedWords-1 {
			finish = `"stop"`
		}
		fmt.Fprintf(w, "data: %s\n\n", chunk("x", finish))
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprint(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":6,"total_tokens":15}}`+"\n\ndata: [DONE]\n\n")
}

func (m *pacedModel) say(words int) {
	for range words {
		m.word <- struct{}{}
	}
}

const sharedBody = `{"model":"m","temperature":0,"stream":true,"messages":[{"role":"user","content":"hi"}]}`

// serveShared runs `weir serve` with a model whose requests share runs, and whose callers' leaving counts soon.
func serveShared(t *testing.T, m *pacedModel) *process {
	t.Helper()
	return start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--config", writeConfig(t, fmt.Sprintf(
		"models:\n  m:\n    backends: [{name: up, protocol: openai, url: %q}]\n    retry: {max_tries: 1}\ntenants: {default: {coalesce: on}}\ningest: {disconnect_grace: 50ms}\n", m.URL)))
}

// sharer is a caller of the same answer as others.
type sharer struct {
	id     string
	answer *http.Response
	lines  *bufio.Reader
	read   strings.Builder
}

// share asks and reads the first event.
func (p *process) share(t *testing.T) *sharer {
	t.Helper()
	s := &sharer{answer: p.post(t, sharedBody)}
	s.id = s.answer.Header.Get("X-Request-Id")
	s.lines = bufio.NewReader(s.answer.Body)
	for !strings.Contains(s.read.String(), "\n\n") {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", s.read.String(), err)
		}
		s.read.WriteString(line)
	}
	return s
}

// wantWhole reads the rest.
func (s *sharer) wantWhole(t *testing.T) {
	t.Helper()
	rest, err := io.ReadAll(s.lines)
	if err != nil {
		t.Fatal(err)
	}
	if text, code, done := answerOf(t, append([]byte(s.read.String()), rest...)); text != strings.Repeat("x", pacedWords) || code != "" || !done {
		t.Errorf("%s has the text %q, code %q, ended with [DONE]: %t", s.id, text, code, done)
	}
}

// outcome waits for the final record of a request.
func (p *process) outcome(t *testing.T, id string) (o schemas.Outcome) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		status, body := get(t, "http://"+p.HTTP+"/v1/streams/"+id+"/result")
		if status == http.StatusOK {
			if err := json.Unmarshal([]byte(body), &o); err != nil {
				t.Fatal(err)
			}
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("no result of %s: %d %s", id, status, body)
		}
	}
}

func (p *process) stopRequest(t *testing.T, id string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.HTTP+"/v1/streams/"+id+"/cancel", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("cancel of %s: %s", id, response.Status)
	}
}

// The request that runs ends, because its caller leaves or asks for it. Who shares the run gets all of it, live, and the model is
// not asked again; what it cost is in the results once.
func TestTheRunGoesOnForThoseWhoShareIt(t *testing.T) {
	t.Parallel()
	for _, followers := range []int{1, 3} {
		for _, leaves := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d followers, the caller leaves: %t", followers, leaves), func(t *testing.T) {
				t.Parallel()
				model := newPacedModel(t)
				serve := serveShared(t, model)
				model.say(2)
				first := serve.share(t)
				var others []*sharer
				for range followers {
					s := serve.share(t)
					others = append(others, s)
					if got := s.answer.Header.Get(schemas.HeaderCache); got != string(schemas.CacheCoalesced) {
						t.Errorf("%s is %q", schemas.HeaderCache, got)
					}
				}
				if leaves {
					first.answer.Body.Close()
				} else {
					serve.stopRequest(t, first.id)
				}
				ended := serve.outcome(t, first.id)
				if ended.Status != schemas.StatusCancelled || !strings.Contains(string(ended.Error), string(schemas.CodeCancelled)) || ended.Usage == nil {
					t.Fatalf("the first ended %s with %s, usage %v", ended.Status, ended.Error, ended.Usage)
				}
				model.say(pacedWords - 2)
				for _, s := range others {
					s.wantWhole(t)
				}
				heir := serve.outcome(t, others[0].id)
				if heir.Usage == nil || ended.Usage.CompletionTokens+heir.Usage.CompletionTokens != pacedWords {
					t.Errorf("the first is charged for %+v and its heir for %+v: want %d tokens of the answer in all", ended.Usage, heir.Usage, pacedWords)
				}
				if n := model.calls.Load(); n != 1 {
					t.Errorf("the model was called %d times", n)
				}
			})
		}
	}
}

// All leave, one after the other, and with the last one goes the call.
func TestTheRunEndsWithTheLastWhoSharesIt(t *testing.T) {
	t.Parallel()
	model := newPacedModel(t)
	serve := serveShared(t, model)
	model.say(1)
	all := []*sharer{serve.share(t), serve.share(t), serve.share(t)}
	for _, s := range all[:2] {
		serve.stopRequest(t, s.id)
	}
	model.say(1)
	for line := ""; !strings.HasPrefix(line, "data:"); { // it comes live
		var err error
		if line, err = all[2].lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if len(model.left) > 0 {
		t.Error("the call was ended while somebody shared the run")
	}
	serve.stopRequest(t, all[2].id)
	select {
	case <-model.left:
	case <-time.After(30 * time.Second):
		t.Error("the call goes on for nobody")
	}
	for _, s := range all {
		if o := serve.outcome(t, s.id); o.Status != schemas.StatusCancelled {
			t.Errorf("%s ended %s", s.id, o.Status)
		}
	}
	if n := model.calls.Load(); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

// The first leaves before the model has said anything.
func TestTheRunGoesOnBeforeItsFirstToken(t *testing.T) {
	t.Parallel()
	model := newPacedModel(t)
	serve := serveShared(t, model)
	id, done := make([]string, 2), make([]chan string, 2)
	for n := range 2 {
		id[n], done[n] = fmt.Sprint("early-", n), make(chan string, 1)
		go func() {
			answer, err := io.ReadAll(serve.post(t, sharedBody, schemas.HeaderRequestID, id[n]).Body)
			if err != nil {
				t.Error(err)
			}
			done[n] <- string(answer)
		}()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
			if status, _ := get(t, "http://"+serve.HTTP+"/v1/streams/"+id[n]+"/result"); status == http.StatusAccepted && model.calls.Load() == 1 {
				break
			}
		}
	}
	serve.stopRequest(t, id[0])
	<-done[0]
	model.say(pacedWords)
	if text, code, ended := answerOf(t, []byte(<-done[1])); text != strings.Repeat("x", pacedWords) || code != "" || !ended {
		t.Errorf("text %q, code %q, ended with [DONE]: %t", text, code, ended)
	}
	if n := model.calls.Load(); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
	if o := serve.outcome(t, id[0]); o.Status != schemas.StatusCancelled || o.Usage != nil && o.Usage.CompletionTokens > 0 {
		t.Errorf("the first ended %s, charged for %+v", o.Status, o.Usage)
	}
}
