package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// soon is how long a key may take here to work, or to stop, in every process. A second is promised, of a machine that does
// nothing else.
const soon = 10 * time.Second

// within polls until the condition holds.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// watching is a ring over a store, as a process has one.
func watching(t *testing.T, b *bus.Bus) *keys.Ring {
	t.Helper()
	ring, err := keys.New(keys.Config{Store: b.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := ring.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); owned.Wait() })
	select {
	case <-ring.Listed():
	case <-time.After(time.Minute):
		t.Fatal("the keys were not listed")
	}
	return ring
}

func verifies(ring *keys.Ring, token keys.Token) func() bool {
	return func() bool { _, err := ring.Verify(token.Reveal()); return err == nil }
}

func refuses(ring *keys.Ring, token keys.Token, says string) func() bool {
	return func() bool {
		_, err := ring.Verify(token.Reveal())
		return err != nil && strings.Contains(err.Error(), says)
	}
}

// Two processes know of everything that a third does with keys within a second.
func TestKeysAreEffectiveEverywhere(t *testing.T) {
	server := bustest.Server(t)
	manager := &keys.Manager{Bus: bustest.Connect(t, server, bus.Config{}), Actor: "ops@here"}
	rings := []*keys.Ring{watching(t, bustest.Connect(t, server, bus.Config{})), watching(t, bustest.Connect(t, server, bus.Config{}))}
	everywhere := func(what string, holds func(*keys.Ring) func() bool) {
		t.Helper()
		for _, ring := range rings {
			within(t, soon, what, holds(ring))
		}
	}
	everywhere("open", func(r *keys.Ring) func() bool { return r.Open })

	token, record, err := manager.Create(t.Context(), keys.Request{Tenant: "acme", Models: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	everywhere("created", func(r *keys.Ring) func() bool { return verifies(r, token) })
	everywhere("closed", func(r *keys.Ring) func() bool { return func() bool { return !r.Open() } })
	second, _, err := manager.Rotate(t.Context(), record.ID, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	everywhere("rotated", func(r *keys.Ring) func() bool { return verifies(r, second) })
	if _, _, err := manager.Rotate(t.Context(), record.ID, time.Time{}); err == nil || !strings.Contains(err.Error(), "2 live secrets already") {
		t.Errorf("a third secret: %v", err)
	}
	if _, err := manager.Revoke(t.Context(), record.ID, record.Secrets[0].Name()); err != nil {
		t.Fatal(err)
	}
	everywhere("one revoked", func(r *keys.Ring) func() bool { return refuses(r, token, "revoked") })
	everywhere("the other goes on", func(r *keys.Ring) func() bool { return verifies(r, second) })
	third, _, err := manager.Rotate(t.Context(), record.ID, time.Time{})
	if err != nil {
		t.Fatalf("a revoked secret still takes a place: %v", err)
	}
	everywhere("rotated again", func(r *keys.Ring) func() bool { return verifies(r, third) })
	if _, err := manager.Revoke(t.Context(), record.ID, ""); err != nil {
		t.Fatal(err)
	}
	everywhere("all revoked", func(r *keys.Ring) func() bool { return refuses(r, third, "revoked") })
	if _, _, err := manager.Rotate(t.Context(), record.ID, time.Time{}); err == nil || !strings.Contains(err.Error(), "create a new one") {
		t.Errorf("a revoked key rises again: %v", err)
	}
	checkEvents(t, server, []string{"created", "rotated", "revoked", "rotated", "revoked"}, token, second, third)
}

// checkEvents reads what the events tell about keys, and that they tell no secret.
func checkEvents(t *testing.T, server *natsd.Server, want []string, tokens ...keys.Token) {
	t.Helper()
	nc, err := nats.Connect(server.ClientURL(), nats.UserInfo(server.Username(), server.Password()), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), schemas.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for i, action := range want {
		msg, err := stream.GetMsg(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			V                         int
			Action, ID, Tenant, Actor string
		}
		if err := json.Unmarshal(msg.Data, &e); err != nil || msg.Subject != "llm.events.keys" || e.V != 1 || e.Action != action || e.Tenant != "acme" || e.Actor != "ops@here" || e.ID == "" {
			t.Errorf("event %d on %s is %s (%v), want %s", i, msg.Subject, msg.Data, err, action)
		}
		for _, token := range tokens {
			if secret := token.Reveal()[18:]; strings.Contains(string(msg.Data), secret[:20]) {
				t.Errorf("event %d tells a secret", i)
			}
		}
	}
}

func TestManagerRefuses(t *testing.T) {
	manager := &keys.Manager{Bus: bustest.New(t)}
	for name, tt := range map[string]struct {
		request keys.Request
		want    string
	}{
		"tenant":  {keys.Request{Tenant: "a.b"}, "tenant"},
		"scope":   {keys.Request{Tenant: "a", Scope: "root"}, "scope"},
		"models":  {keys.Request{Tenant: "a", Models: []string{""}}, "model"},
		"expired": {keys.Request{Tenant: "a", Expires: time.Now().Add(-time.Minute)}, "in the past"},
	} {
		if _, _, err := manager.Create(t.Context(), tt.request); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	for _, id := range []string{"", "short", "has.dots.in.i", "UPPERCASE123"} {
		if _, err := manager.Revoke(t.Context(), id, ""); err == nil || !strings.Contains(err.Error(), "is not the id of a key") {
			t.Errorf("revoke %q: %v", id, err)
		}
	}
	whole := keys.NewToken("zzzzzzzzzzzz")
	if _, err := manager.Revoke(t.Context(), whole.Reveal(), ""); err == nil || strings.Contains(err.Error(), whole.Reveal()) || !strings.Contains(err.Error(), "the id is "+whole.ID) {
		t.Errorf("revoke of a whole key: %v", err)
	}
	if _, err := manager.Revoke(t.Context(), "zzzzzzzzzzzz", ""); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("revoke of an unknown key: %v", err)
	}
	_, record, err := manager.Create(t.Context(), keys.Request{Tenant: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Revoke(t.Context(), record.ID, "00000000"); err == nil || !strings.Contains(err.Error(), "no secret") {
		t.Errorf("revoke of an unknown secret: %v", err)
	}
	if err := manager.Bus.Keys().Create(t.Context(), "foreign", []byte("x")); err != nil {
		t.Fatal(err)
	}
	records, err := manager.List(t.Context())
	if len(records) != 1 || records[0].ID != record.ID || err == nil || !strings.Contains(err.Error(), "foreign") {
		t.Errorf("List = %v, %v; want the one key, and what is wrong with the other", records, err)
	}
}

// Of many who add a secret at once, as many succeed as there are places.
func TestRotationIsAtomic(t *testing.T) {
	manager := &keys.Manager{Bus: bustest.New(t)}
	_, record, err := manager.Create(t.Context(), keys.Request{Tenant: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var owned sync.WaitGroup
	outcomes := make(chan error, 8)
	for range cap(outcomes) {
		owned.Go(func() { _, _, err := manager.Rotate(t.Context(), record.ID, time.Time{}); outcomes <- err })
	}
	owned.Wait()
	added := 0
	for range cap(outcomes) {
		if err := <-outcomes; err == nil {
			added++
		} else if !strings.Contains(err.Error(), "live secrets already") {
			t.Errorf("rotate: %v", err)
		}
	}
	records, err := manager.List(t.Context())
	if err != nil || added != 1 || len(records[0].Secrets) != 2 {
		t.Errorf("%d secrets were added, %d are there (%v); want one more than before", added, len(records[0].Secrets), err)
	}
}

// A ring that loses NATS goes on with what it knows, and catches up as soon as it is back: after a cut and after a restart
// of the server.
func TestRingWithoutNATS(t *testing.T) {
	dir := t.TempDir()
	serve := func() *natsd.Server {
		server, err := natsd.New(natsd.Config{Dir: dir, Listen: "127.0.0.1:0", Open: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		return server
	}
	server := serve()
	proxy := bustest.NewProxy(t, server.ClientURL())
	manager := &keys.Manager{Bus: bustest.Connect(t, server, bus.Config{})}
	var tokens []keys.Token
	var ids []string
	create := func() {
		token, record, err := manager.Create(t.Context(), keys.Request{Tenant: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		tokens, ids = append(tokens, token), append(ids, record.ID)
	}
	create()
	create()
	far, err := bus.Connect(t.Context(), bus.Config{URL: proxy.URL(), Name: "far"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	ring := watching(t, far)

	proxy.Set(bustest.ToClient, bustest.Hold)
	if _, err := manager.Revoke(t.Context(), ids[0], ""); err != nil {
		t.Fatal(err)
	}
	if !verifies(ring, tokens[0])() || !verifies(ring, tokens[1])() {
		t.Error("a ring that is cut off forgot its keys")
	}
	proxy.Cut()
	within(t, soon, "the revocation after the cut", refuses(ring, tokens[0], "revoked"))
	if !verifies(ring, tokens[1])() {
		t.Error("a key was lost in the cut")
	}

	server.Close()
	if !verifies(ring, tokens[1])() {
		t.Error("a ring forgot its keys with the server")
	}
	server = serve()
	manager = &keys.Manager{Bus: bustest.Connect(t, server, bus.Config{})}
	create()
	if _, err := manager.Revoke(t.Context(), ids[1], ""); err != nil {
		t.Fatal(err)
	}
	proxy.Lead(server.ClientURL())
	within(t, 3*soon, "a key of after the restart", verifies(ring, tokens[2]))
	within(t, soon, "a revocation of after the restart", refuses(ring, tokens[1], "revoked"))
	create()
	within(t, soon, "a key when all is as before", verifies(ring, tokens[3]))
}
