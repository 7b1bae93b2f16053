package natsd

import (
	"context"
	"errors"
	"fmt"
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
	refusesToGuessReplicas(t, nodes[0])
	refuses(t, bus.Config{URL: nodes[0].ClientURL(), Username: "weir", Password: "pipeline", Replicas: 5, StoreBytes: 256 << 20},
		"replicas: 5 needs as many servers in the cluster", "reserve 0.25 GiB in all on each")
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
	t.Run("what a tenant asks for", func(t *testing.T) { isServed(t, nodes, old) })
	t.Run("revoking one secret", func(t *testing.T) {
		if _, err := manager.Revoke(t.Context(), record.ID, record.Secrets[0].Name()); err != nil {
			t.Fatal(err)
		}
		for _, nc := range old {
			closesWithin(t, nc, 30*time.Second)
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
			closesWithin(t, nc, 30*time.Second)
		}
	})
}

// refusesToGuessReplicas creates a key before there is a store, without having been told how many replicas it needs.
func refusesToGuessReplicas(t *testing.T, node *server.Server) {
	t.Helper()
	b, err := bus.Connect(t.Context(), bus.Config{URL: node.ClientURL(), Username: "weir", Password: "pipeline"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, _, err := (&keys.Manager{Bus: b}).Create(t.Context(), keys.Request{Tenant: "acme"}); err == nil || !strings.Contains(err.Error(), "replicas: 3") {
		t.Errorf("a key store with one replica on a cluster: %v", err)
	}
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
	return connect(t, node.ClientURL(), append(with, nats.CustomInboxPrefix(schemas.EdgeInbox(name)), nats.NoReconnect(), nats.Timeout(time.Minute))...)
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
		nc, err := nats.Connect(node.ClientURL(), append(with, nats.Timeout(time.Minute))...)
		if err == nil {
			nc.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s waited %s for the refusal", name, took)
		}
	}
}

// refusals tells which of its actions a server refused to a connection.
type refusals struct {
	t    *testing.T
	nc   *nats.Conn
	said chan string
	n    int
}

func refusalsTo(t *testing.T, nc *nats.Conn) *refusals {
	r := &refusals{t: t, nc: nc, said: make(chan string, 64)}
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.said <- err.Error() })
	return r
}

// wants does something about a subject and compares whether it was refused. Refusals come in order, so that what has not
// come before that of a marker does not come.
func (r *refusals) wants(subject string, refused bool, do func(subject string) error) {
	r.t.Helper()
	r.n++
	marker := fmt.Sprintf("nobody.may.%d", r.n)
	if err := errors.Join(do(subject), r.nc.Publish(marker, nil)); err != nil {
		r.t.Fatal(err)
	}
	got := false
	for limit := time.After(time.Minute); ; {
		select {
		case text := <-r.said:
			if strings.Contains(text, `"`+marker+`"`) {
				if got != refused {
					r.t.Errorf("%s refused: %v, want %v", subject, got, refused)
				}
				return
			}
			got = got || strings.Contains(text, `"`+subject+`"`)
		case <-limit:
			r.t.Fatal("the marker was not refused")
		}
	}
}

func (r *refusals) publish(subject string) error { return r.nc.Publish(subject, []byte("x")) }

func (r *refusals) subscribe(subject string) error {
	_, err := r.nc.SubscribeSync(subject)
	return err
}

// confines tries what a tenant may and may not do.
func confines(t *testing.T, nc *nats.Conn, name string) {
	t.Helper()
	r := refusalsTo(t, nc)
	for subject, refused := range map[string]bool{
		"llm.chat." + name + ".echo": false, "llm.resume." + name + ".r1": false, "llm.cancel." + name + ".r1": false,
		"llm.chat.other.echo": true, "llm.requests." + name + ".echo": true, "llm.chunks." + name + ".r1": true, "$JS.API.INFO": true,
	} {
		r.wants(subject, refused, r.publish)
	}
	for subject, refused := range map[string]bool{
		"llm.replies." + name + ".*": false, nc.NewInbox(): false, "llm.replies.other.*": true, "llm.replies.>": true, "_INBOX.>": true, ">": true, "$SYS.>": true,
	} {
		r.wants(subject, refused, r.subscribe)
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
