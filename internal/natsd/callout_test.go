package natsd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// On a cluster with the shipped configuration an API key opens NATS on every node, for its tenant alone, and a revoked one
// loses its connections on every node, whichever process had let them in.
func TestAuthCalloutOnACluster(t *testing.T) {
	issuer := pairs(t)
	nodes := cluster(t, issuer)
	createWhenReady(t, streams(t, connect(t, nodes[0].ClientURL(), nats.UserInfo("weir", "pipeline"))))
	b, err := bus.Connect(t.Context(), bus.Config{
		URL: nodes[0].ClientURL() + "," + nodes[1].ClientURL(), Username: "weir", Password: "pipeline", Name: "test", Replicas: 3, StoreBytes: 256 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	manager := &keys.Manager{Bus: b}
	key, record, err := manager.Create(t.Context(), keys.Request{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := manager.Rotate(t.Context(), record.ID, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // two processes share the work
		answer(t, b, issuer)
	}

	var old, other []*nats.Conn
	for _, node := range nodes {
		old = append(old, tenant(t, node, "acme", nats.Token(key.Reveal())))
		other = append(other, tenant(t, node, "acme", nats.UserInfo("anything", second.Reveal())))
	}
	t.Run("who is refused", func(t *testing.T) { refusesStrangers(t, nodes[2], key) })
	t.Run("what a tenant may do", func(t *testing.T) { confines(t, old[0], "acme") })
	t.Run("how it is known", func(t *testing.T) { isNamed(t, nodes[0], record) })
	t.Run("revoking one secret", func(t *testing.T) {
		if _, err := manager.Revoke(t.Context(), record.ID, record.Secrets[0].Name()); err != nil {
			t.Fatal(err)
		}
		for _, nc := range old {
			closesWithin(t, nc, 2*time.Second)
		}
		for _, nc := range other {
			flush(t, nc)
		}
	})
	t.Run("revoking all", func(t *testing.T) {
		if _, err := manager.Revoke(t.Context(), record.ID, ""); err != nil {
			t.Fatal(err)
		}
		for _, nc := range other {
			closesWithin(t, nc, 2*time.Second)
		}
	})
}

// answer runs what a process with ingest runs, until the test ends.
func answer(t *testing.T, b *bus.Bus, issuer callout.Pairs) {
	t.Helper()
	ring, err := keys.New(keys.Config{Store: b.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	responder, err := callout.New(callout.Config{Bus: b, User: "auth", Password: "callout", IssuerSeed: issuer.IssuerSeed, XKeySeed: issuer.XKeySeed})
	if err != nil {
		t.Fatal(err)
	}
	responder.Admit(ring.Admit)
	ctx, stop := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() { _ = ring.Run(ctx) })
	owned.Go(func() { ring.Guard(ctx, responder) })
	owned.Go(func() {
		if err := responder.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); owned.Wait(); responder.Close() })
	<-ring.Listed()
}

func tenant(t *testing.T, node *server.Server, name string, with ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, node.ClientURL(), append(with, nats.CustomInboxPrefix(schemas.EdgeInbox(name)), nats.NoReconnect(), nats.Timeout(10*time.Second))...)
}

func refusesStrangers(t *testing.T, node *server.Server, key keys.Token) {
	text := key.Reveal()
	for name, with := range map[string][]nats.Option{
		"nobody":                  nil,
		"a mistyped key":          {nats.Token(text[:len(text)-1])},
		"another secret":          {nats.Token(keys.NewToken(key.ID).Reveal())},
		"an unknown key":          {nats.Token(keys.NewToken("zzzzzzzzzzzz").Reveal())},
		"a user with a wrong one": {nats.UserInfo("weir", text)},
	} {
		began := time.Now()
		nc, err := nats.Connect(node.ClientURL(), append(with, nats.Timeout(10*time.Second))...)
		if err == nil {
			nc.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s waited %s for the refusal", name, took)
		}
	}
}

// confines tries what a tenant may and may not do.
func confines(t *testing.T, nc *nats.Conn, name string) {
	var mu sync.Mutex
	var violations []string
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		violations = append(violations, err.Error())
	})
	refused := func(subject string) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(violations, func(v string) bool { return strings.Contains(v, `"`+subject+`"`) })
	}
	for subject, want := range map[string]bool{
		"llm.chat." + name + ".echo": false, "llm.resume." + name + ".r1": false, "llm.cancel." + name + ".r1": false,
		"llm.chat.other.echo": true, "llm.requests." + name + ".echo": true, "llm.chunks." + name + ".r1": true, "$JS.API.INFO": true,
	} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		flush(t, nc) // the error comes before the second answer
		if got := refused(subject); got != want {
			t.Errorf("publish to %s refused: %v, want %v", subject, got, want)
		}
	}
	for subject, want := range map[string]bool{
		"llm.replies." + name + ".*": false, nc.NewInbox(): false, "llm.replies.other.*": true, "llm.replies.>": true, "_INBOX.>": true, ">": true, "$SYS.>": true,
	} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		flush(t, nc)
		if got := refused(subject); got != want {
			t.Errorf("subscribe to %s refused: %v, want %v", subject, got, want)
		}
	}
}

// isNamed checks how the server knows a tenant's connection: by the key and never by its secret, and for a limited time.
func isNamed(t *testing.T, node *server.Server, record *keys.Record) {
	list, err := node.Connz(&server.ConnzOptions{Username: true, Account: schemas.AccountEdge})
	if err != nil || len(list.Conns) != 2 {
		t.Fatalf("connections of tenants: %v (%v), want 2", list, err)
	}
	want := record.ID + "/" + record.Secrets[0].Name()
	if !slices.ContainsFunc(list.Conns, func(c *server.ConnInfo) bool { return c.AuthorizedUser == want }) {
		t.Errorf("no connection is known as %s", want)
	}
}

func closesWithin(t *testing.T, nc *nats.Conn, limit time.Duration) {
	t.Helper()
	closed := nc.StatusChanged(nats.CLOSED)
	if nc.IsClosed() {
		return
	}
	select {
	case <-closed:
	case <-time.After(limit):
		t.Errorf("a connection whose key has ended was still open after %s", limit)
	}
}
