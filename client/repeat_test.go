package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// act is what a played door does with a request.
type act int

const (
	answer act = iota
	cutOff     // end the connection, with the request accepted or not
	refuse     // service_unavailable
	deny       // a refusal that does not pass
)

func (a act) refusal() *schemas.Error {
	if a == deny {
		return schemas.Errorf(schemas.CodeIdempotencyMismatch, "another body")
	}
	return schemas.Errorf(schemas.CodeUnavailable, "the request cannot be reached now")
}

// played is a door that plays one act after another, and answers when they are over.
type played struct {
	mu    sync.Mutex
	acts  []act
	asked int
}

func (p *played) play(acts ...act) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acts, p.asked = acts, 0
}

func (p *played) next() act {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.asked > len(p.acts) {
		return answer
	}
	return p.acts[p.asked-1]
}

func (p *played) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// playedAnswer is right for every call.
const playedAnswer = `{"status":"completed"}`

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch a := p.next(); {
	case a == cutOff:
		panic(http.ErrAbortHandler)
	case a != answer:
		w.WriteHeader(map[act]int{refuse: http.StatusServiceUnavailable, deny: http.StatusUnprocessableEntity}[a])
		_, _ = w.Write(a.refusal().Encode())
	case strings.Contains(string(body), `"stream":true`):
		fmt.Fprintf(w, "id: x.0\ndata: %s\n\ndata: [DONE]\n\n", playedAnswer)
	default:
		fmt.Fprint(w, playedAnswer)
	}
}

// overNATS plays the door on a server of its own and tells where a tenant connects to it.
func (p *played) overNATS(t *testing.T) (url string) {
	t.Helper()
	server, door := playDoor(t)
	proxy := bustest.NewProxy(t, server.ClientURL())
	for _, subject := range []string{schemas.ChatAll, schemas.ResumeAll, schemas.CancelAll} {
		_, err := door.Subscribe(subject, func(m *nats.Msg) {
			reply := nats.NewMsg(m.Reply)
			switch a := p.next(); a {
			case cutOff:
				proxy.Cut()
				return
			case answer:
				frame := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "door", Count: 1}
				reply.Header[schemas.HeaderFrame] = []string{frame.Header()}
				reply.Header[schemas.HeaderRequestID] = []string{"x"}
				reply.Data = []byte(playedAnswer)
			default:
				reply.Header[schemas.HeaderServiceError] = []string{a.refusal().Message}
				reply.Header[schemas.HeaderServiceErrorCode] = []string{strconv.Itoa(http.StatusServiceUnavailable)}
				reply.Data = a.refusal().Encode()
			}
			_ = door.PublishMsg(reply)
			_ = m.Respond(nil)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := door.Flush(); err != nil {
		t.Fatal(err)
	}
	return proxy.URL()
}

// asking is each way to ask a door.
var asking = map[string]func(context.Context, *client.Client) error{
	"complete": func(ctx context.Context, c *client.Client) error {
		_, err := c.Complete(ctx, words(`"words":["a"]`))
		return err
	},
	"stream": func(ctx context.Context, c *client.Client) error {
		_, err := read(c.Stream(ctx, words(`"stream":true`)))
		return err
	},
	"send":   func(ctx context.Context, c *client.Client) error { _, err := c.Send(ctx, words(`"x":1`)); return err },
	"wait":   func(ctx context.Context, c *client.Client) error { _, err := c.Wait(ctx, "", "x"); return err },
	"cancel": func(ctx context.Context, c *client.Client) error { return c.Cancel(ctx, "", "x") },
}

// outcome is how asking ends; without a code it is success.
type outcome struct {
	code  schemas.Code
	tries int
}

// A request of which a try broke may run, so that a door which refuses it only for now does not end it; what is refused at
// first is refused, unless it can be asked twice.
func TestARefusalAfterABreak(t *testing.T) {
	t.Parallel()
	for transport, at := range map[string]func(*testing.T, *played) string{
		"http": func(t *testing.T, p *played) string {
			server := httptest.NewServer(p)
			t.Cleanup(server.Close)
			return server.URL
		},
		"tenant": func(t *testing.T, p *played) string { return p.overNATS(t) },
	} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			var door played
			url := at(t, &door)
			c, ctx := way{transport, url, client.Config{Tenant: "acme", APIKey: apiKey}}.connect(t, url)
			for name, test := range map[string]struct {
				acts       []act
				sent, read outcome // of what is sent, and of what may be asked twice
			}{
				"broken, then refused": {[]act{cutOff, refuse, answer}, outcome{"", 3}, outcome{"", 3}},
				"broken, then denied":  {[]act{cutOff, deny}, outcome{schemas.CodeIdempotencyMismatch, 2}, outcome{schemas.CodeIdempotencyMismatch, 2}},
				"refused at first":     {[]act{refuse, answer}, outcome{schemas.CodeUnavailable, 1}, outcome{"", 2}},
			} {
				for what, ask := range asking {
					want := test.sent
					if what == "wait" || what == "cancel" {
						want = test.read
					}
					door.play(test.acts...)
					if err := ask(ctx, c); code(err) != want.code || (err == nil) != (want.code == "") || door.times() != want.tries {
						t.Errorf("%s, %s: %v after %d tries, want %+v", name, what, err, door.times(), want)
					}
				}
			}
		})
	}
}

// A client that is closed is not waited for.
func TestAskingAClosedClient(t *testing.T) {
	t.Parallel()
	c, ctx := way{"tenant", serverURL, client.Config{APIKey: apiKey, Tenant: "acme"}}.connect(t, serverURL)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for what, ask := range asking {
		if err := ask(ctx, c); code(err) != schemas.CodeUnavailable || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %s", took)
	}
}
