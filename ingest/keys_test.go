package ingest_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// soon is how long a key may take to work here, and what it opened to end. A second is promised, of a machine that does
// nothing else.
const soon = 10 * time.Second

// liveKeys gives a door the keys of LLM_KEYS, as a process has them, and the manager that makes them.
func liveKeys(t *testing.T, manager *keys.Manager) func(*ingest.Config) {
	return func(c *ingest.Config) {
		manager.Bus = c.Bus
		ring, err := keys.New(keys.Config{Store: c.Bus.Keys()})
		if err != nil {
			t.Fatal(err)
		}
		c.Keys = ring
		runRing(t, ring)
		<-ring.Listed()
	}
}

func runRing(t *testing.T, ring *keys.Ring) {
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() { _ = ring.Run(ctx) })
	t.Cleanup(func() { cancel(); owned.Wait() })
}

// newKey makes a key and waits until the door takes it.
func (w *bench) newKey(m *keys.Manager, want keys.Request) (token string, record *keys.Record) {
	w.t.Helper()
	made, record, err := m.Create(w.t.Context(), want)
	if err != nil {
		w.t.Fatal(err)
	}
	within(w.t, soon, "the new key", func() bool {
		return w.ask("GET", "/v1/models", "", "X-Api-Key", made.Reveal()).status == 200
	})
	return made.Reveal(), record
}

func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); <-time.After(pollInterval) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// hanging is a script that answers a stream's first event and then goes on for ever.
func hanging(j *job) {
	j.start()
	j.delta(1)
	j.wait(nil)
}

// follow opens a stream, reads its first event, and gives what comes after it, once it has come to an end.
func (w *bench) follow(header ...string) (rest <-chan string) {
	w.t.Helper()
	return w.followed(w.do(w.t.Context(), "POST", "/v1/chat/completions", streaming, header...))
}

func (w *bench) followed(response *http.Response) (rest <-chan string) {
	w.t.Helper()
	if response.StatusCode != http.StatusOK {
		w.t.Fatalf("status %d: %s", response.StatusCode, read(response).body)
	}
	reader := bufio.NewReader(response.Body)
	for line := ""; !strings.HasPrefix(line, "data: "); {
		var err error
		if line, err = reader.ReadString('\n'); err != nil {
			w.t.Fatal(err)
		}
	}
	end := make(chan string, 1)
	go func() { // it ends with the response, which the test closes
		text, err := io.ReadAll(reader)
		if err != nil {
			text = append(text, "broken: "+err.Error()...)
		}
		end <- string(text)
	}()
	return end
}

// endsWith fails the test unless a stream ends soon, whole in form and with an error in it.
func endsWith(t *testing.T, rest <-chan string, reason string) {
	t.Helper()
	endsWithin(t, soon, rest, reason)
}

func endsWithin(t *testing.T, limit time.Duration, rest <-chan string, reason string) {
	t.Helper()
	select {
	case text := <-rest:
		if !strings.Contains(text, `"code":"invalid_api_key"`) || !strings.Contains(text, reason) || strings.Contains(text, "broken") || strings.Contains(text, "[DONE]") {
			t.Errorf("the stream ended with %q, want an error that says %q", text, reason)
		}
	case <-time.After(limit):
		t.Errorf("the stream goes on %s after: %s", limit, reason)
	}
}

func TestBothHeadersCarryAKey(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), withKey(t))
	w.chat(streaming, "X-Api-Key", "secret").wants(t, 200)
	w.chat(streaming, "X-Api-Key", "secret", "Authorization", "Basic abc").wants(t, 200)
	w.chat(streaming, "X-Api-Key", "wrong").wants(t, 401, "invalid_api_key")
	w.chat(streaming, "X-Api-Key", "secret", "Authorization", "Bearer wrong").wants(t, 401)
}

func TestScopes(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), func(c *ingest.Config) {
		c.Models = func() []string { return []string{"m-1.5", "other"} }
		c.Keys = ring(t,
			keys.Configured{ID: "full", SHA256: hashOf("full"), Tenant: "acme"},
			keys.Configured{ID: "audit", SHA256: hashOf("audit"), Tenant: "acme", Scope: keys.ScopeAudit},
			keys.Configured{ID: "one", SHA256: hashOf("one"), Tenant: "acme", Models: []string{"other"}})
	})
	id := w.chat(streaming, bearer("full")...).wants(t, 200).id()

	w.ask("GET", "/v1/streams/"+id, "", bearer("audit")...).wants(t, 200, sse(id, 0, 1))
	eventually(t, "the result", func() bool {
		return w.ask("GET", "/v1/streams/"+id+"/result", "", bearer("audit")...).status == 200
	})
	w.ask("GET", "/v1/models", "", bearer("audit")...).wants(t, 200, "m-1.5", "other")
	for _, c := range [][2]string{{"POST", "/v1/chat/completions"}, {"POST", "/v1/streams/" + id + "/cancel"}, {"DELETE", "/v1/streams/" + id}} {
		w.ask(c[0], c[1], streaming, bearer("audit")...).wants(t, 403, "insufficient_scope", "permission_error")
	}

	w.ask("GET", "/v1/models", "", bearer("one")...).wants(t, 200, "other").without(t, "m-1.5")
	w.chat(streaming, bearer("one")...).wants(t, 403, "model_not_allowed", `"param":"model"`)
	w.chat(streaming, append(bearer("one"), "Idempotency-Key", "k")...).wants(t, 403, "model_not_allowed")
	w.chat(strings.Replace(streaming, "m-1.5", "other", 1), bearer("one")...).wants(t, 200)
}

// A key that may cancel nothing does not do so by leaving either. What came by the direct door has no other reader that
// ingest knows of.
func TestAnAuditorEndsNothingByLeaving(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(20*time.Millisecond, 50*time.Millisecond), func(c *ingest.Config) {
		c.Keys = ring(t, keys.Configured{ID: "full", SHA256: hashOf("full"), Tenant: ingest.DefaultTenant},
			keys.Configured{ID: "audit", SHA256: hashOf("audit"), Tenant: ingest.DefaultTenant, Scope: keys.ScopeAudit})
	})
	id := of("direct")
	if _, err := w.bus.Accept(t.Context(), &schemas.Request{Identity: id, ModelToken: "m", Op: schemas.OpChat, Body: []byte(streaming)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first event", func() bool {
		chain, err := w.bus.Chain(t.Context(), id)
		return err == nil && chain.Next() > 0
	})
	w.leave("GET", "/v1/streams/direct", "", bearer("audit")...)
	w.stays(id, 300*time.Millisecond)
	w.leave("GET", "/v1/streams/direct", "", bearer("full")...)
	w.cancelled("direct")
}

func TestNobodyComesInBeforeTheKeysAreKnown(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), func(c *ingest.Config) {
		ring, err := keys.New(keys.Config{Store: c.Bus.Keys()}) // nobody runs it
		if err != nil {
			t.Fatal(err)
		}
		c.Keys = ring
	})
	for _, header := range [][]string{nil, bearer(keys.NewToken("zzzzzzzzzzzz").Reveal())} {
		if got := w.chat(streaming, header...).wants(t, 503, "service_unavailable"); got.header.Get("Retry-After") == "" {
			t.Errorf("no Retry-After in %v", got.header)
		}
	}
}

// Beyond loopback nobody comes in without a key, even where the door was opened before it was known that there is none.
func TestOpenAccessIsForLoopbackOnly(t *testing.T) {
	t.Parallel()
	var late *keys.Ring
	w := setup(t, tokens(1), func(c *ingest.Config) {
		var err error
		if late, err = keys.New(keys.Config{Store: c.Bus.Keys()}); err != nil {
			t.Fatal(err)
		}
		c.Keys, c.Addr = late, "0.0.0.0:0"
	})
	_, port, err := net.SplitHostPort(w.door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://127.0.0.1:" + port
	runRing(t, late)
	eventually(t, "the keys to be known", late.Open)
	w.chat(streaming).wants(t, 401, "no API key given")
	w.chat(streaming, bearer("anything")...).wants(t, 401)
}

func TestRevokedKeyLosesItsStreams(t *testing.T) {
	t.Parallel()
	var manager keys.Manager
	w := setup(t, hanging, liveKeys(t, &manager))
	token, record := w.newKey(&manager, keys.Request{Tenant: "acme"})
	second, _, err := manager.Rotate(t.Context(), record.ID, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	within(t, soon, "the second secret", func() bool {
		return w.ask("GET", "/v1/models", "", bearer(second.Reveal())...).status == 200
	})
	streams := []<-chan string{w.follow(append(bearer(token), "Llm-Request-Id", "r1")...), w.follow("X-Api-Key", token)}
	streams = append(streams, w.followed(w.do(t.Context(), "GET", "/v1/streams/r1", "", bearer(token)...)))
	stays := w.follow(bearer(second.Reveal())...)
	waiting := make(chan answer, 1)
	go func() {
		request, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/v1/chat/completions", strings.NewReader(unary))
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Llm-Request-Id", "unary-1")
		response, err := w.client.Do(request)
		if err != nil {
			waiting <- answer{body: err.Error()}
			return
		}
		waiting <- read(response)
	}()
	eventually(t, "the unary request to run", func() bool {
		chain, err := w.bus.Chain(t.Context(), schemas.Identity{Tenant: "acme", Request: "unary-1"})
		return err == nil && chain.Start() != nil
	})

	if _, err := manager.Revoke(t.Context(), record.ID, record.Secrets[0].Name()); err != nil {
		t.Fatal(err)
	}
	for _, rest := range streams {
		endsWith(t, rest, "was revoked")
	}
	(<-waiting).wants(t, 401, "invalid_api_key", "was revoked")
	w.chat(streaming, bearer(token)...).wants(t, 401, "was revoked")
	select {
	case text := <-stays:
		t.Errorf("a stream of the other secret ended with %q", text)
	default:
	}
	if _, err := manager.Revoke(t.Context(), record.ID, ""); err != nil {
		t.Fatal(err)
	}
	endsWith(t, stays, "was revoked")
}

func TestExpiredKeyLosesItsStreams(t *testing.T) {
	t.Parallel()
	var manager keys.Manager
	w := setup(t, hanging, liveKeys(t, &manager))
	expires := time.Now().Add(5 * time.Second) // far enough for a stream to begin
	token, _ := w.newKey(&manager, keys.Request{Tenant: "acme", Expires: expires})
	rest := w.follow(bearer(token)...)
	endsWithin(t, time.Until(expires)+soon, rest, "has expired")
	if early := time.Until(expires); early > 0 {
		t.Errorf("the stream ended %s before its key", early)
	}
	w.chat(streaming, bearer(token)...).wants(t, 401, "has expired")
}

func TestFirstKeyClosesTheDoor(t *testing.T) {
	t.Parallel()
	var manager keys.Manager
	w := setup(t, hanging, liveKeys(t, &manager))
	rest := w.follow()
	token, record := w.newKey(&manager, keys.Request{Tenant: ingest.DefaultTenant})
	endsWith(t, rest, "a key exists now")
	w.chat(streaming).wants(t, 401, "no API key given")
	w.ask("GET", "/v1/models", "", bearer(token)...).wants(t, 200)
	if _, err := manager.Revoke(t.Context(), record.ID, ""); err != nil {
		t.Fatal(err)
	}
	within(t, soon, "the revocation", func() bool { return w.ask("GET", "/v1/models", "", bearer(token)...).status == 401 })
	w.ask("GET", "/v1/models", "").wants(t, 401)
}

var _ keys.Watcher = (*bus.KeyStore)(nil)
