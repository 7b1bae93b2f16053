package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func TestTheHeirIsAsked(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	worker, router := bustest.Connect(t, server, bus.Config{}), bustest.Connect(t, server, bus.Config{})
	if w, err := worker.Heir(t.Context(), "m", schemas.Identity{Tenant: "acme", Request: "nobody-listens"}); w != nil || !errors.Is(err, bus.ErrUnanswered) {
		t.Errorf("without a router: %+v, %v", w, err)
	}
	want := &schemas.Work{
		Request: schemas.Request{
			Identity: schemas.Identity{Tenant: "acme", Request: "heir"}, ModelToken: "m", Op: schemas.OpChat, Priority: schemas.PriorityNormal,
			Header: schemas.Header{schemas.HeaderPriority: {"normal"}},
			Body:   []byte(`{"model":"m"}`),
		},
		Dispatch: 1, Accepted: time.UnixMilli(1_764_000_000_123), Shared: true,
	}
	stop, err := router.OnHeir(func(id schemas.Identity, answer func(*schemas.Work)) {
		switch id.Request {
		case "followed":
			answer(want)
		case "alone":
			answer(nil)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ask := func(id string) (*schemas.Work, error) {
		return worker.Heir(t.Context(), "m", schemas.Identity{Tenant: "acme", Request: id})
	}
	got, err := ask("followed")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("a request that others share (-want +got):\n%s%v", diff, err)
	}
	if w, err := ask("alone"); w != nil || err != nil {
		t.Errorf("a request that nobody shares: %+v, %v", w, err)
	}
	if w, err := ask("unknown"); w != nil || !errors.Is(err, bus.ErrUnanswered) {
		t.Errorf("a request that the router says nothing of: %+v, %v", w, err)
	}
}
