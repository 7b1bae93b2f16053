package router

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func beatOf(worker string, models ...schemas.ModelBeat) *schemas.Heartbeat {
	return &schemas.Heartbeat{V: 1, Worker: worker, Models: models}
}

func TestRoomCountsWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := newFleet(now)
	want := func(what string, room int) {
		t.Helper()
		if got := f.room("m"); got != room {
			t.Errorf("%s: room = %d, want %d", what, got, room)
		}
	}
	want("no worker", 0)
	f.beat(beatOf("w1", schemas.ModelBeat{Model: "m", Slots: 4, Used: 1}), now)
	f.beat(beatOf("w2", schemas.ModelBeat{Model: "m", Slots: 2}, schemas.ModelBeat{Model: "n", Slots: 9}), now)
	want("two workers", 5)

	f.sending("m")
	want("one being published", 4)
	f.sent("m", 10, now)
	want("one published", 4)
	f.beat(beatOf("w2", schemas.ModelBeat{Model: "m", Slots: 2, Used: 1, Held: []uint64{10}}), now)
	want("the worker shows it", 4)
	f.beat(beatOf("w2", schemas.ModelBeat{Model: "m", Slots: 2, Released: []uint64{10}}), now)
	want("the worker let it go", 5)

	f.sending("m")
	f.beat(beatOf("w2", schemas.ModelBeat{Model: "m", Slots: 2, Released: []uint64{11}}), now)
	f.sent("m", 11, now)
	want("the worker was faster than the PubAck", 5)

	f.sending("m")
	f.unsent("m")
	want("the publish failed", 5)

	f.beat(&schemas.Heartbeat{V: 1, Worker: "w1", Draining: true, Models: []schemas.ModelBeat{{Model: "m", Slots: 4, Used: 1}}}, now)
	want("a draining worker has no room", 2)
	f.beat(beatOf("w2", schemas.ModelBeat{Model: "m", Slots: 1, Used: 3}), now)
	want("slots that were taken away are no debt", 0)
}

func TestUnseenDispatchesAreVerified(t *testing.T) {
	t.Parallel()
	start := time.Now()
	f := newFleet(start)
	f.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 2}), start)
	f.sending("m")
	f.sent("m", 7, start)
	unseen := func(at time.Duration) map[string]uint64 { return maps.Collect(f.unseen(start.Add(at))) }
	if got := unseen(verifyAfter - 1); len(got) != 0 {
		t.Errorf("asked too early about %v", got)
	}
	if diff := cmp.Diff(map[string]uint64{"m": 7}, unseen(verifyAfter)); diff != "" {
		t.Errorf("to verify (-want +got):\n%s", diff)
	}
	if got := unseen(verifyAfter + time.Second); len(got) != 0 {
		t.Errorf("asked again at once about %v", got)
	}
	if diff := cmp.Diff(map[string]uint64{"m": 7}, unseen(2*verifyAfter)); diff != "" {
		t.Errorf("to verify again (-want +got):\n%s", diff)
	}
	f.forget("m", 7)
	if got := f.room("m"); got != 2 {
		t.Errorf("room = %d after the dispatch was forgotten, want 2", got)
	}
}

func TestSilentWorkerIsGoneAndItsWorkIsPending(t *testing.T) {
	t.Parallel()
	start := time.Now()
	f := newFleet(start)
	f.beat(beatOf("dead", schemas.ModelBeat{Model: "m", Slots: 4, Used: 3, Held: []uint64{1, 2, 3}, Repeatable: []uint64{2}}), start)
	drained := beatOf("drained", schemas.ModelBeat{Model: "m", Slots: 3})
	drained.Draining = true
	f.beat(drained, start)
	f.beat(beatOf("live", schemas.ModelBeat{Model: "m", Slots: 3}), start)
	at := start.Add(workerGone - time.Millisecond)
	f.beat(beatOf("live", schemas.ModelBeat{Model: "m", Slots: 4, Used: 1, Held: []uint64{3}}), at) // it has one of them already
	if gone := f.sweep(at); len(gone) != 0 {
		t.Errorf("gone too early: %v", gone)
	}
	want := []lostWork{{worker: "dead", model: "m", held: []uint64{1, 2}, repeatable: []uint64{2}}}
	if diff := cmp.Diff(want, f.sweep(start.Add(workerGone)), cmp.AllowUnexported(lostWork{})); diff != "" {
		t.Errorf("gone (-want +got):\n%s", diff)
	}
	if got := f.room("m"); got != 1 {
		t.Errorf("room = %d, want 1: two items will come back and take a slot each", got)
	}
	if joined := f.beat(beatOf("dead", schemas.ModelBeat{Model: "m", Slots: 4, Used: 2, Held: []uint64{1, 2}}), start.Add(workerGone)); !joined {
		t.Error("a worker that comes back must count as new")
	}
	if got := f.room("m"); got != 5 {
		t.Errorf("room = %d after a false alarm, want 5", got)
	}
}

func TestModelStaysKnownForAWhile(t *testing.T) {
	t.Parallel()
	start := time.Now()
	f := newFleet(start)
	f.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 1}), start)
	f.sweep(start.Add(modelLinger))
	if !f.serves("m") {
		t.Error("the model of a worker that went a minute ago is not known")
	}
	f.sweep(start.Add(modelLinger + 1))
	if f.serves("m") {
		t.Errorf("still known: %v", slices.Collect(maps.Keys(f.advertised)))
	}
}
