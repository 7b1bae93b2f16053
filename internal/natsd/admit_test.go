package natsd

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// guarded is an embedded server whose connections a ring admits, as serve has it.
func guarded(t *testing.T) (*Server, *keys.Manager, *keys.Ring) {
	t.Helper()
	s := startServer(t, testConfig(t.TempDir()))
	b, err := bus.Connect(t.Context(), bus.Config{InProcess: s, Username: s.Username(), Password: s.Password(), Name: "test", StoreBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.New(keys.Config{Store: b.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nats.Connect(s.ClientURL(), nats.Timeout(time.Minute)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("before anybody decides: %v, want a refusal", err)
	}
	s.Admit(ring.Admit)
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() { _ = ring.Run(ctx) })
	owned.Go(func() { ring.Guard(ctx, s) })
	t.Cleanup(func() { cancel(); owned.Wait() })
	<-ring.Listed()
	return s, &keys.Manager{Bus: b}, ring
}

// enters polls until a connection is let in.
func enters(t *testing.T, s *Server, with ...nats.Option) *nats.Conn {
	t.Helper()
	with = append(with, nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.CustomInboxPrefix(schemas.EdgeInbox("acme")))
	for deadline := time.Now().Add(30 * time.Second); ; {
		nc, err := nats.Connect(s.ClientURL(), append(with, nats.Timeout(time.Minute))...)
		if err == nil {
			t.Cleanup(nc.Close)
			return nc
		}
		if time.Now().After(deadline) {
			t.Fatalf("not let in within 30 s: %v", err)
		}
	}
}

func stays(t *testing.T, s *Server, with ...nats.Option) {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), append(with, nats.Timeout(time.Minute))...)
	if err == nil {
		nc.Close()
	}
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("%v, want a refusal", err)
	}
}

func TestKeysOpenTheEmbeddedServer(t *testing.T) {
	s, manager, _ := guarded(t)
	anonymous := enters(t, s)
	if _, err := streams(t, anonymous).AccountInfo(timeout(t)); err != nil {
		t.Errorf("an open connection has no JetStream: %v", err)
	}
	pipeline := pipeline(t, s)

	key, record, err := manager.Create(t.Context(), keys.Request{Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	closesWithin(t, anonymous, 30*time.Second)
	stays(t, s)
	flush(t, pipeline) // its own users go on
	byToken, byPassword := enters(t, s, nats.Token(key.Reveal())), enters(t, s, nats.UserInfo("acme", key.Reveal()))
	confines(t, byToken, "acme")
	stays(t, s, nats.Token(keys.NewToken(key.ID).Reveal()))
	stays(t, s, nats.UserInfo(pipelineUser, key.Reveal()))

	second, _, err := manager.Rotate(t.Context(), record.ID, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	bySecond := enters(t, s, nats.Token(second.Reveal()))
	if _, err := manager.Revoke(t.Context(), record.ID, record.Secrets[0].Name()); err != nil {
		t.Fatal(err)
	}
	closesWithin(t, byToken, 30*time.Second)
	closesWithin(t, byPassword, 30*time.Second)
	stays(t, s, nats.Token(key.Reveal()))
	flush(t, bySecond)
	if _, err := manager.Revoke(t.Context(), record.ID, ""); err != nil {
		t.Fatal(err)
	}
	closesWithin(t, bySecond, 30*time.Second)
	stays(t, s)
}

func TestExpiryEndsConnections(t *testing.T) {
	t.Parallel()
	s, manager, _ := guarded(t)
	expires := time.Now().Add(5 * time.Second) // far enough for a connection to be made
	key, _, err := manager.Create(t.Context(), keys.Request{Tenant: "acme", Expires: expires})
	if err != nil {
		t.Fatal(err)
	}
	nc := enters(t, s, nats.Token(key.Reveal()))
	closesWithin(t, nc, time.Until(expires)+30*time.Second)
	if early := time.Until(expires); early > 0 {
		t.Errorf("the connection ended %s before its key", early)
	}
	stays(t, s, nats.Token(key.Reveal()))
}

// A key that may only read cannot send, and one for a model cannot send to another.
func TestScopesOnNATS(t *testing.T) {
	s, manager, _ := guarded(t)
	for name, tt := range map[string]struct {
		request keys.Request
		refused map[string]bool
	}{
		"audit": {keys.Request{Tenant: "acme", Scope: keys.ScopeAudit}, map[string]bool{
			"llm.chat.acme.echo": true, "llm.cancel.acme.r1": true, "llm.resume.acme.r1": true, "llm.read.acme.r1": false,
		}},
		"models": {keys.Request{Tenant: "acme", Models: []string{"gpt-4.1"}}, map[string]bool{
			"llm.chat.acme.echo": true, "llm.chat.acme.gpt-4=2E1": false, "llm.cancel.acme.r1": false, "llm.resume.acme.r1": false, "llm.read.acme.r1": false,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			key, _, err := manager.Create(t.Context(), tt.request)
			if err != nil {
				t.Fatal(err)
			}
			nc := enters(t, s, nats.Token(key.Reveal()))
			r := refusalsTo(t, nc)
			for subject, refused := range tt.refused {
				r.wants(subject, refused, r.publish)
			}
		})
	}
}
