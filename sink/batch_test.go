package sink

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func TestRecordOfAnotherRequestIsPoison(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	meters, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sink{bus: b, log: slog.New(slog.DiscardHandler), meters: meters}
	data := (&schemas.Result{V: 1, Tenant: "victim", RequestID: "r1", Status: schemas.StatusCompleted}).Encode()
	for subject, want := range map[string]bool{"llm.results.victim.r1": true, "llm.results.other.r1": false, "llm.results.victim.r=1": false} {
		_, ok := s.read(t.Context(), &bus.Delivery{Subject: subject, Header: schemas.Header{}, Data: data})
		if ok != want {
			t.Errorf("%s holds the record of victim/r1: accepted %v, want %v", subject, ok, want)
		}
	}
}

var errAway = errors.New("no answer")

// An object store that is away is no fault of the record; an object that is gone is.
func TestUnreadableBodyIsTriedAgain(t *testing.T) {
	t.Parallel()
	inline := &bus.Delivery{Header: schemas.Header{}, Delivered: 1}
	offloaded := &bus.Delivery{Header: schemas.Header{schemas.HeaderObject: {"acme/r1/w/0 1 digest"}}, Delivered: 1}
	given := &bus.Delivery{Header: offloaded.Header, Delivered: maxReads}
	for name, test := range map[string]struct {
		delivery *bus.Delivery
		err      error
		want     bool
	}{
		"inline":              {inline, errAway, false},
		"store away":          {offloaded, errAway, true},
		"object gone":         {offloaded, bus.ErrNotFound, false},
		"away for many times": {given, errAway, false},
	} {
		if got := mayBeRead(test.delivery, test.err); got != test.want {
			t.Errorf("%s: may be read later: %v, want %v", name, got, test.want)
		}
	}
}
