package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// A door that stops in the middle of an answer leaves the rest to the next one.
func TestStreamGoesOnAtAnotherDoor(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]string{"the status is out": `"pace":20`, "nothing came yet": `"pace":300`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			door, err := newDoor(10 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			running, stop := context.WithCancel(context.Background())
			stopped := make(chan error, 1)
			go func() { stopped <- door.Run(running) }()
			proxy := bustest.NewProxy(t, door.Addr().String())
			sent := proxy.At(bustest.ToServer, after, bustest.Pass)

			w := way{"http", strings.Replace(proxy.URL(), "nats", "http", 1), client.Config{APIKey: apiKey}}
			c, ctx := w.connect(t, w.to)
			var moving sync.WaitGroup
			moving.Go(func() {
				<-sent
				proxy.Lead(strings.TrimPrefix(doorURL, "http://"))
				if after == `"pace":300` {
					stop()
				}
			})
			var got []string
			for event, err := range c.Stream(ctx, words(`"stream":true,"words":["a","b","c"],`+after)) {
				if err != nil {
					t.Fatal(err)
				}
				stop()
				got = append(got, fmt.Sprint(event.Cursor.Index, " ", string(event.Data)))
			}
			check(t, got, nil, `0 {"word":"a"}`, `1 {"word":"b"}`, `2 {"word":"c"}`)
			moving.Wait()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNobodyIsThere(t *testing.T) {
	t.Parallel()
	alone, err := newServer(t.TempDir()) // without a door
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(alone.Close)
	for name, cfg := range map[string]client.Config{
		"http":   {URL: "http://127.0.0.1:1", APIKey: apiKey},
		"tenant": {URL: alone.ClientURL(), APIKey: apiKey, Tenant: "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.ReconnectFor = 300 * time.Millisecond
			c, ctx := way{name, cfg.URL, cfg}.connect(t, cfg.URL)
			for what, err := range map[string]error{
				"send":   func() error { _, err := c.Send(ctx, words(`"x":1`)); return err }(),
				"stream": func() error { _, err := read(c.Stream(ctx, words(`"stream":true`))); return err }(),
				"resume": func() error { _, err := read(c.Resume(ctx, "", "some", 3)); return err }(),
				"result": func() error { _, err := c.Result(ctx, "", "some"); return err }(),
				"cancel": c.Cancel(ctx, "", "some"),
			} {
				if code(err) != schemas.CodeUnavailable {
					t.Errorf("%s: %v, want %s", what, err, schemas.CodeUnavailable)
				}
			}
		})
	}
}

func TestTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	c, ctx := way{"http", doorURL, client.Config{APIKey: "another"}}.connect(t, doorURL)
	if _, err := c.Complete(ctx, words(`"words":["a"]`)); code(err) != schemas.CodeInvalidKey {
		t.Errorf("http: %v", err)
	}
	if _, err := client.Connect(ctx, client.Config{URL: serverURL, APIKey: "another", Tenant: "acme"}); code(err) != schemas.CodeInvalidKey {
		t.Errorf("tenant: %v", err)
	}
	if _, err := client.Connect(ctx, client.Config{URL: serverURL, APIKey: apiKey}); err == nil || !strings.Contains(err.Error(), "Config.Tenant") {
		t.Errorf("a key without a tenant: %v", err)
	}
	if _, err := client.Connect(ctx, client.Config{URL: serverURL, APIKey: apiKey, Tenant: "acme", Username: "u"}); err == nil || !strings.Contains(err.Error(), "other credentials") {
		t.Errorf("a key and a password: %v", err)
	}
}

// The server does not answer what a key may not send, so the client says it.
func TestTheKeyIsOfAnotherTenant(t *testing.T) {
	t.Parallel()
	c, ctx := way{"tenant", serverURL, client.Config{APIKey: apiKey, Tenant: "other"}}.connect(t, serverURL)
	began := time.Now()
	for what, err := range map[string]error{
		"send":   func() error { _, err := c.Send(ctx, words(`"x":1`)); return err }(),
		"resume": func() error { _, err := read(c.Resume(ctx, "", "some", 3)); return err }(),
		"cancel": c.Cancel(ctx, "", "some"),
	} {
		if code(err) != schemas.CodeModelNotAllowed {
			t.Errorf("%s: %v, want %s", what, err, schemas.CodeModelNotAllowed)
		}
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %s", took)
	}
}

// What is no door is told from one, and never taken for an answer.
func TestWhatIsNoDoor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter)
		want   schemas.Code
	}{
		"a page":                 {func(w http.ResponseWriter) { w.WriteHeader(404); fmt.Fprint(w, "<html>") }, schemas.CodeUnavailable},
		"a redirect":             {func(w http.ResponseWriter) { w.Header().Set("Location", "/login"); w.WriteHeader(302) }, schemas.CodeUnavailable},
		"a proxy without a door": {func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, "<html>") }, schemas.CodeUnavailable},
		"another API":            {func(w http.ResponseWriter) { fmt.Fprint(w, "data: {\"choices\":[]}\n\n") }, schemas.CodeUnavailable},
		"a stream that stops":    {func(w http.ResponseWriter) { fmt.Fprint(w, "id: x.0\ndata: {}\n\n") }, schemas.CodeUnavailable},
		"a gap":                  {func(w http.ResponseWriter) { fmt.Fprint(w, "id: x.1\ndata: {}\n\ndata: [DONE]\n\n") }, schemas.CodeUnavailable},
		"a limit": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			fmt.Fprint(w, `{"error":{"message":"slower","code":"rate_limit_exceeded"}}`)
		}, schemas.CodeRateLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/chat/completions" && r.URL.Path != "/v1/streams/x" {
					w.WriteHeader(404)
					return
				}
				test.answer(w)
			}))
			t.Cleanup(server.Close)
			cfg := client.Config{APIKey: apiKey, ReconnectFor: 200 * time.Millisecond}
			c, ctx := way{name, server.URL, cfg}.connect(t, server.URL)
			request := words(`"stream":true`)
			request.ID = "x"
			_, err := read(c.Stream(ctx, request))
			if code(err) != test.want {
				t.Fatalf("%v, want %s", err, test.want)
			}
			if test.want == schemas.CodeRateLimit && schemas.AsError(err).RetryAfter != 7*time.Second {
				t.Errorf("retry after %s", schemas.AsError(err).RetryAfter)
			}
		})
	}
}

func TestOperationsOverHTTP(t *testing.T) {
	t.Parallel()
	paths := make(chan string, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		fmt.Fprint(w, `{}`)
	}))
	t.Cleanup(server.Close)
	c, ctx := way{"http", server.URL, client.Config{}}.connect(t, server.URL)
	for op, want := range map[schemas.Op]string{"": "/v1/chat/completions", schemas.OpChat: "/v1/chat/completions", schemas.OpCompletion: "/v1/completions", schemas.OpEmbedding: "/v1/embeddings",
		schemas.OpMessages: "/v1/messages", schemas.OpCountTokens: "/v1/messages/count_tokens"} {
		request := words(`"x":1`)
		request.Op = op
		if _, err := c.Complete(ctx, request); err != nil {
			t.Errorf("%s: %v", op, err)
		}
		if got := <-paths; got != want {
			t.Errorf("%q went to %s, want %s", op, got, want)
		}
	}
	request := words(`"x":1`)
	request.Op = "sing"
	if _, err := c.Complete(ctx, request); code(err) != schemas.CodeInvalidValue {
		t.Errorf("an operation that does not exist: %v", err)
	}
}
