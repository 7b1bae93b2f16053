package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

const body = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`

// testSilence is long enough for a machine that is busy with other tests.
const testSilence = 4 * time.Second

// collect reads a stream to its end.
func collect(t *testing.T, c *Client, request Request) (all []string) {
	t.Helper()
	for event, err := range c.Stream(t.Context(), request) {
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		all = append(all, fmt.Sprint(event.Cursor.Index, string(event.Data)))
	}
	return all
}

// A door that says nothing any more, not even that it lives, is left for another one; one that only makes one wait is not.
func TestSilenceOverHTTP(t *testing.T) {
	t.Parallel()
	resumed := make(chan string, 64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "r")
		if r.Method == http.MethodGet {
			resumed <- r.URL.RequestURI()
			for range 10 { // heartbeats, for longer than the silence
				fmt.Fprint(w, ": hb\n")
				_ = http.NewResponseController(w).Flush()
				<-time.After(testSilence / 8)
			}
			fmt.Fprint(w, "id: r.1\ndata: {}\n\ndata: [DONE]\n\n")
			return
		}
		fmt.Fprint(w, "id: r.0\ndata: {}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	c, err := Connect(t.Context(), Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.way.(*overHTTP).silence = testSilence
	if got := collect(t, c, Request{Body: []byte(body)}); strings.Join(got, " ") != "0{} 1{}" {
		t.Errorf("events %q", got)
	}
	if got := <-resumed; got != "/v1/streams/r?starting_after=0" || len(resumed) > 0 {
		t.Errorf("resumed by %s, and %d times more", got, len(resumed))
	}
}

func TestSilenceOnNATS(t *testing.T) {
	t.Parallel()
	server, err := natsd.New(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	server.Admit(func(keys.Credentials) (keys.Grant, error) {
		return keys.Grant{Name: "acme", Account: schemas.AccountEdge, Publish: schemas.EdgePublish("acme"), Subscribe: schemas.EdgeSubscribe("acme")}, nil
	})
	door, err := nats.Connect(server.ClientURL(), nats.UserInfo(server.EdgeUser()), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	send := func(to string, index uint64) {
		frame := &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "door", Index: index, Count: 1}
		_ = door.PublishMsg(&nats.Msg{Subject: to, Data: []byte("{}"), Header: nats.Header{
			schemas.HeaderFrame: {frame.Header()}, schemas.HeaderRequestID: {"r"},
		}})
	}
	resumed := make(chan string, 64)
	for subject, answer := range map[string]func(*nats.Msg){
		schemas.ChatAll: func(m *nats.Msg) { send(m.Reply, 0) }, // and nothing more
		schemas.ResumeAll: func(m *nats.Msg) {
			resumed <- m.Subject + " " + string(m.Data)
			for range 10 { // signs of life, for longer than the silence
				_ = door.PublishMsg(&nats.Msg{Subject: m.Reply, Data: []byte("\n"), Header: nats.Header{schemas.HeaderRequestID: {"r"}}})
				<-time.After(testSilence / 8)
			}
			send(m.Reply, 1)
			_ = door.Publish(m.Reply, nil)
		},
	} {
		if _, err := door.Subscribe(subject, answer); err != nil {
			t.Fatal(err)
		}
	}
	if err := door.Flush(); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(t.Context(), Config{URL: server.ClientURL(), Tenant: "acme", APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.way.(*tenant).silence = testSilence
	if got := collect(t, c, Request{Body: []byte(body)}); strings.Join(got, " ") != "0{} 1{}" {
		t.Errorf("events %q", got)
	}
	if got := <-resumed; got != "llm.resume.acme.r 0" || len(resumed) > 0 {
		t.Errorf("resumed by %s, and %d times more", got, len(resumed))
	}
}

// A part that is missing leaves no whole.
func TestAssembly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ parts, want string }{
		"one":             {"1/1", "a"},
		"three":           {"1/3 2/3 3/3", "abc"},
		"the first lost":  {"2/3 3/3", ""},
		"one lost":        {"1/3 3/3", ""},
		"the last lost":   {"1/3 2/3", ""},
		"begun again":     {"1/3 1/2 2/2", "bc"},
		"after a loss":    {"1/3 3/3 1/2 2/2", "cd"},
		"out of sequence": {"1/3 3/3 2/3", ""},
		"nonsense":        {"x/2 2/2", ""},
	} {
		var whole assembly
		got := ""
		for i, part := range strings.Fields(test.parts) {
			if whole.add(&nats.Msg{Data: []byte{byte('a' + i)}, Header: nats.Header{schemas.HeaderPart: {part}}}) {
				got = string(whole.take())
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
