package bus_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func TestWaitingIsAsked(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	ingest, router := bustest.Connect(t, server, bus.Config{}), bustest.Connect(t, server, bus.Config{})
	began := time.Now()
	if w, err := ingest.Waiting(t.Context(), schemas.Identity{Tenant: "acme", Request: "nobody-listens"}); w != nil || err != nil {
		t.Errorf("without a router: %+v, %v", w, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to find out that there is no router", took)
	}
	want := &schemas.Waiting{V: 1, Place: 2, Queued: 7, WaitMS: 1500}
	stop, err := router.OnWaiting(func(id schemas.Identity, answer func(*schemas.Waiting)) {
		if id.Request == "waits" {
			answer(want)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	got, err := ingest.Waiting(t.Context(), schemas.Identity{Tenant: "acme", Request: "waits"})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("a request that waits (-want +got):\n%s%v", diff, err)
	}
	if w, err := ingest.Waiting(t.Context(), schemas.Identity{Tenant: "acme", Request: "runs"}); w != nil || err != nil {
		t.Errorf("a request that runs: %+v, %v", w, err)
	}
}
