package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

var longAgo = time.Now().Add(-time.Hour)

// putResults stores small results with these ids.
func putResults(t testing.TB, b *bus.Bus, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := b.PutResult(t.Context(), result(id, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// history are the ids of the stored results of a tenant.
func history(t testing.TB, b *bus.Bus, tenant string, since time.Time) (ids []string) {
	t.Helper()
	for r, err := range b.TailResults(deadline(t, patience), tenant, since, false) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.RequestID)
	}
	return ids
}

func TestHistory(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var all []string
	for i := range 150 { // more than one batch
		all = append(all, fmt.Sprint("r-", i))
	}
	putResults(t, b, all...)
	other := result("theirs", large("x"))
	other.Tenant = "other"
	if err := b.PutResult(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string][]string{"acme": all, "": append(slices.Clone(all), "theirs"), "other": {"theirs"}, "nobody": nil} {
		if diff := cmp.Diff(want, history(t, b, tenant, longAgo)); diff != "" {
			t.Errorf("of %q:\n%s", tenant, diff)
		}
	}
	if got := history(t, b, "acme", time.Time{}); got != nil {
		t.Errorf("since now: %q", got)
	}
	for _, err := range b.TailResults(t.Context(), "a.*", longAgo, false) {
		wantCode(t, err, schemas.CodeInvalidValue)
	}
}

// A record that cannot be read is logged and does not hide those behind it.
func TestDamagedResultIsLeftOut(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	log := &journal{}
	b := bustest.Connect(t, server, bus.Config{Logger: log.logger()})
	_, js := raw(t, server)
	damage := func(id string) {
		if _, err := js.Publish(t.Context(), schemas.Identity{Tenant: "acme", Request: id}.Result(), []byte("not a record")); err != nil {
			t.Fatal(err)
		}
	}
	damage("d-1")
	putResults(t, b, "r-1")
	gone := result("d-2", large("x"))
	if err := b.PutResult(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	store, err := js.ObjectStore(t.Context(), schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), objects(t, server)[0]); err != nil {
		t.Fatal(err)
	}
	putResults(t, b, "r-2")
	damage("d-3")
	if diff := cmp.Diff([]string{"r-1", "r-2"}, history(t, b, "acme", longAgo)); diff != "" {
		t.Error(diff)
	}
	for _, id := range []string{"d-1", "d-2", "d-3"} {
		if n := len(log.lines("left out", id)); n != 1 {
			t.Errorf("%s is logged %d times, want once", id, n)
		}
	}
}

func TestTailFollows(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	putResults(t, b, "old")
	reason := errors.New("stopped")
	ctx, stop := context.WithCancelCause(deadline(t, patience))
	defer stop(nil)
	want := []string{"old", "r-0", "r-1", "r-2"}
	var got []string
	var last error
	for r, err := range b.TailResults(ctx, "", longAgo, true) {
		if last = err; err != nil {
			continue
		}
		got = append(got, r.RequestID)
		if len(got) == len(want) {
			stop(reason)
			continue
		}
		putResults(t, b, want[len(got)])
	}
	if diff := cmp.Diff(want, got); diff != "" || !errors.Is(last, reason) {
		t.Errorf("the last thing was %v, want the cause\n%s", last, diff)
	}
}

// A tail goes on over a restart of the server, which forgets its consumer.
func TestTailAcrossARestart(t *testing.T) {
	t.Parallel()
	r := newRestartable(t)
	b := connect(t, r.server, bus.Config{URL: r.proxy.URL()})
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	putResults(t, b, "r-0", "r-1")
	var got []string
	for result, err := range b.TailResults(deadline(t, patience), "acme", longAgo, true) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, result.RequestID)
		if len(got) == 2 {
			r.server.Close()
			r.start()
			putResults(t, b, "r-2", "r-3")
		}
		if len(got) == 4 {
			break
		}
	}
	if diff := cmp.Diff([]string{"r-0", "r-1", "r-2", "r-3"}, got); diff != "" {
		t.Error(diff)
	}
}

// A history ends although what was still to come is erased meanwhile.
func TestHistoryEndsWhenTheRestIsErased(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	var ids []string
	for i := range 100 {
		ids = append(ids, fmt.Sprint("r-", i))
	}
	putResults(t, b, ids...)
	_, js := raw(t, server)
	n := 0
	for _, err := range b.TailResults(deadline(t, patience), "acme", longAgo, false) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1 {
			continue
		}
		stream, err := js.Stream(t.Context(), schemas.StreamResults)
		if err == nil {
			err = stream.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 || n == len(ids) {
		t.Errorf("%d results: nothing was erased in time", n)
	}
}

func TestTailLeavesNoConsumer(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	putResults(t, b, "r-1")
	for range b.TailResults(t.Context(), "", longAgo, true) {
		break
	}
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), schemas.StreamResults)
	if err != nil {
		t.Fatal(err)
	}
	names := stream.ConsumerNames(t.Context())
	for name := range names.Name() {
		if name != schemas.ConsumerSink {
			t.Errorf("consumer %s is left", name)
		}
	}
	if err := names.Err(); err != nil {
		t.Error(err)
	}
}
