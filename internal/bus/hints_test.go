package bus_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// heard collects what a hint's listener is told.
type heard[T any] struct {
	mu  sync.Mutex
	all []T
}

func (h *heard[T]) add(v T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, v)
}

func (h *heard[T]) list() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func TestHintsAreHeardByAll(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	other := connect(t, server, bus.Config{URL: server.ClientURL()})
	bob := schemas.Identity{Tenant: "other", Request: "r-2"}
	for name, hint := range map[string]struct {
		on   func(*bus.Bus, func(schemas.Identity)) (func(), error)
		send func(schemas.Identity) error
	}{
		"cancel": {
			func(b *bus.Bus, fn func(schemas.Identity)) (func(), error) {
				return b.OnCancel(func(id schemas.Identity, by schemas.CancelledBy) {
					if by != schemas.CancelledByErasure {
						t.Errorf("cancelled by %q", by)
					}
					fn(id)
				})
			},
			func(id schemas.Identity) error { return b.Cancel(id, schemas.CancelledByErasure) },
		},
		"attach": {(*bus.Bus).OnAttach, b.Attach},
	} {
		var here, there heard[schemas.Identity]
		for listener, h := range map[*bus.Bus]*heard[schemas.Identity]{b: &here, other: &there} {
			stop, err := hint.on(listener, h.add)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
		}
		want := []schemas.Identity{alice, bob}
		for _, id := range want {
			if err := hint.send(id); err != nil {
				t.Fatal(err)
			}
		}
		for where, h := range map[string]*heard[schemas.Identity]{"here": &here, "there": &there} {
			eventually(t, name+" is heard "+where, func() bool { return len(h.list()) >= len(want) })
			if diff := cmp.Diff(want, h.list()); diff != "" {
				t.Errorf("%s %s:\n%s", name, where, diff)
			}
		}
	}
}

func TestStopEndsTheListening(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var first, second heard[schemas.Identity]
	stop, err := b.OnAttach(first.add)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := b.OnAttach(second.add); err != nil {
		t.Fatal(err)
	}
	if err := b.Attach(alice); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hint is heard", func() bool { return len(second.list()) == 1 })
	if n := len(first.list()); n != 0 {
		t.Errorf("%d hints after the stop", n)
	}
}

func TestBeats(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	log := &journal{}
	b := bustest.Connect(t, server, bus.Config{Logger: log.logger()})
	var beats heard[*schemas.Heartbeat]
	stop, err := b.OnBeat(beats.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	conn, _ := raw(t, server)
	for _, garbage := range []string{"", "{}", `{"worker":"a b"}`} {
		if err := conn.Publish(schemas.WorkerSubject("w"), []byte(garbage)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	want := &schemas.Heartbeat{V: 1, Worker: "w-1", Models: []schemas.ModelBeat{{Model: "echo", Slots: 4, Used: 1, Held: []uint64{7}}}}
	if err := b.Beat(want); err != nil {
		t.Fatal(err)
	}
	if err := b.RouterBeat(&schemas.RouterBeat{V: 1, Router: "router-1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the beat", func() bool { return len(beats.list()) > 0 })
	if diff := cmp.Diff([]*schemas.Heartbeat{want}, beats.list()); diff != "" {
		t.Error(diff)
	}
	if n := len(log.lines("a heartbeat was dropped")); n != 3 {
		t.Errorf("%d beats were dropped, want 3", n)
	}
}

func TestHintsOfAClosedBus(t *testing.T) {
	t.Parallel()
	b := connect(t, bustest.Server(t), bus.Config{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if err := b.Cancel(alice, schemas.CancelledByCaller); err == nil {
		t.Error("a hint was sent")
	}
	if _, err := b.OnCancel(func(schemas.Identity, schemas.CancelledBy) {}); err == nil {
		t.Error("somebody listens")
	}
	b.Event("incident", nil) // may be lost
}

func TestEventsAreKept(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	b.Event("takeover", []byte(`{"worker":"w"}`))
	eventually(t, "the event", func() bool { return stored(t, server, schemas.StreamEvents) == 1 })
	_, js := raw(t, server)
	if got := last(t, js, schemas.StreamEvents, schemas.EventSubject("takeover")); string(got.Data) != `{"worker":"w"}` {
		t.Errorf("event %q", got.Data)
	}
}
