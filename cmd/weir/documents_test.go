package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-llm/weir/internal/schematest"
	"github.com/weir-llm/weir/schemas"
)

// witness checks every message that goes by against the documents in schemas.
type witness struct {
	t    *testing.T
	doc  *schematest.Document
	conn *nats.Conn

	mu   sync.Mutex
	seen map[string]bool // "<first two tokens of the subject> <kind>"
}

// newWitness listens with the operator's own credentials, which serve left in the data directory.
func newWitness(t *testing.T, dir string) *witness {
	t.Helper()
	doc, err := schematest.Load(filepath.Join("..", "..", "schemas"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "nats", "context", "weir.json"))
	if err != nil {
		t.Fatal(err)
	}
	var operator struct{ URL, User, Password string }
	if err := json.Unmarshal(file, &operator); err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(operator.URL, nats.UserInfo(operator.User, operator.Password), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	w := &witness{t: t, doc: doc, conn: conn, seen: map[string]bool{}}
	for _, subject := range []string{"llm.>", "_INBOX_default.>"} {
		if _, err := conn.Subscribe(subject, w.look); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *witness) look(m *nats.Msg) {
	kinds, err := w.doc.Check(m.Subject, schemas.Header(m.Header), m.Data)
	if err != nil {
		w.t.Errorf("a message that is not described:\n%s %v\n%.2000s\n%v", m.Subject, m.Header, m.Data, err)
	}
	tokens := strings.Split(m.Subject, ".")
	space := tokens[0]
	if space == "llm" {
		space = tokens[1]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range kinds {
		w.seen[space+" "+kind] = true
	}
}

// await fails the test unless messages of all these kinds went by.
func (w *witness) await(want ...string) {
	w.t.Helper()
	var missing []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		w.mu.Lock()
		missing = slices.DeleteFunc(slices.Clone(want), func(kind string) bool { return w.seen[kind] })
		w.mu.Unlock()
		if len(missing) == 0 {
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Errorf("no message was seen of the kinds %q; there were %q", missing, slices.Sorted(maps.Keys(w.seen)))
}

// send publishes a request with an inbox of the default tenant's.
func (w *witness) send(subject, reply, body string, header ...string) {
	w.t.Helper()
	m := &nats.Msg{Subject: subject, Reply: reply, Data: []byte(body), Header: nats.Header{}}
	for i := 0; i < len(header); i += 2 {
		m.Header[header[i]] = []string{header[i+1]}
	}
	if err := w.conn.PublishMsg(m); err != nil {
		w.t.Fatal(err)
	}
}

// acknowledged publishes a request and checks what JetStream answers.
func (w *witness) acknowledged(body string) {
	w.t.Helper()
	answer, err := w.conn.Request("llm.requests.default.nope", []byte(body), time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	ack, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer.Data))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.doc.Schemas["pub-ack.schema.json"].Validate(ack); err != nil {
		w.t.Errorf("acknowledgement %s: %v", answer.Data, err)
	}
}

// TestMessagesAreAsDescribed runs requests of every kind through the whole pipeline while a witness compares each message
// with schemas/asyncapi.yaml.
func TestMessagesAreAsDescribed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	w := newWitness(t, dir)
	post := func(body string, header ...string) {
		if _, err := io.Copy(io.Discard, serve.post(t, body, header...).Body); err != nil {
			t.Error(err)
		}
	}
	post(chat("hello", `,"stream":true,"stream_options":{"include_usage":true}`), "Idempotency-Key", "k", "Llm-Priority", "interactive", "Llm-Deadline", "4000000000000")
	post(chat("hello", ""), "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	post(chat(strings.Repeat("large ", 60_000), `,"stream":true`))
	post(chat("cut", `,"stream":true,"x_echo":{"tokens":9,"cut":3}`))
	post(chat("refused", `,"x_echo":{"fail":"rate_limit_exceeded","retry_after_ms":5}`))

	// Few tokens a second: the witness checks two messages for each, and is not to fall behind on a busy machine.
	running := serve.post(t, chat("cancelled", `,"stream":true,"x_echo":{"tokens":5000,"interval_ms":50}`), "Llm-Request-Id", "running")
	reader, stop := context.WithCancel(t.Context())
	second, err := http.NewRequestWithContext(reader, http.MethodGet, "http://"+serve.HTTP+"/v1/streams/running", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := caller().Do(second)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	defer stop()

	const inbox = "_INBOX_default.doc."
	w.acknowledged(`{"model":"nope","messages":[{"role":"user","content":"hi"}]}`)
	w.send("llm.requests.default.echo", "", strings.Replace(chat("hi", ""), "{", `{"model":"echo",`, 1)) // the same member twice is no JSON
	w.send("llm.chat.default.echo", inbox+"a", `{"messages":[{"role":"user","content":"hi"}],"stream":true}`, "Llm-Cache", "off")
	w.send("llm.chat.default.echo", inbox+"b", chat("hi", ""), "Idempotency-Key", "again", "Prefer", "respond-async")
	w.send("llm.chat.default.echo", inbox+"c", chat("hi", ""))
	w.send("llm.chat.default.echo", inbox+"d", strings.Replace(chat("hi", ""), "echo", "other", 1))
	w.send("llm.resume.default.running", inbox+"e", "result")
	w.send("llm.resume.default.running", inbox+"f", "0")
	w.await("replies delta", "attach attach")
	cancel, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://%s/v1/streams/running/cancel", serve.HTTP), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := caller().Do(cancel)
	if err != nil || ended.StatusCode != http.StatusOK {
		t.Fatalf("cancel: %v %v", ended, err)
	}
	ended.Body.Close()
	if _, err := io.Copy(io.Discard, running.Body); err != nil {
		t.Error(err)
	}
	if _, _, err := call(t, "keys", "create", "--data-dir", dir, "--tenant", "acme"); err != nil {
		t.Fatal(err)
	}
	w.await("requests request", "work work", "results result", "workers heartbeat", "routers heartbeat", "attach attach", "cancel cancel", "events keys", "dlq deadLetter",
		"chunks accepted", "chunks start", "chunks delta", "chunks end", "chunks response", "chunks error",
		"replies accepted", "replies start", "replies delta", "replies end", "replies response", "replies error",
		"chat request", "resume resume",
		"_INBOX_default delta", "_INBOX_default response", "_INBOX_default outcome", "_INBOX_default accepted", "_INBOX_default error", "_INBOX_default end")
}
