package bus_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// Readers that join at any moment, from any index, near or far, however slow and whatever is cut meanwhile, see the same.
func TestReadersSeeTheSame(t *testing.T) {
	t.Parallel()
	const frames, readers = 400, 24
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	registry := prometheus.NewRegistry()
	b, p, near := far(t, bus.Config{Registerer: registry})

	want, chunks := []string{}, [][]string{}
	for range frames {
		var chunk []string
		for range 1 + random.IntN(4) {
			chunk = append(chunk, fmt.Sprint("event ", len(want)+len(chunk)))
		}
		want, chunks = append(want, chunk...), append(chunks, chunk)
	}
	reached := make([]chan struct{}, frames+1) // closed before a frame is written, the last one after all
	for i := range reached {
		reached[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	for i := range readers {
		from, joins, slow, reader := random.IntN(len(want)), random.IntN(frames+1), i%3 == 1, near
		if i%3 == 2 {
			reader = b
		}
		ctx := deadline(t, patience)
		all.Go(func() {
			<-reached[joins]
			seen := reader.Read(ctx, alice, bus.ReadOptions{From: uint64(from)})
			if slow {
				seen = pausing(seen, reached[frames])
			}
			events, err := drain(seen, uint64(from))
			if diff := cmp.Diff(want[from:], events); err != nil || diff != "" {
				t.Errorf("reader %d (from %d, joined at frame %d): %v\n%s", i, from, joins, err, diff)
			}
		})
	}
	cuts := []int{random.IntN(frames), random.IntN(frames)}
	index, last := uint64(0), write(t, near, alice, 0, start("a"))
	for i, chunk := range chunks {
		close(reached[i])
		if slices.Contains(cuts, i) {
			p.Cut()
		}
		last = write(t, near, alice, last, delta("a", index, chunk...))
		index += uint64(len(chunk))
	}
	write(t, near, alice, last, end("a", index))
	close(reached[frames])
	all.Wait()
}

// pausing stops a reader after its first frame until more is closed.
func pausing(frames iter.Seq2[*schemas.Frame, error], more <-chan struct{}) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for f, err := range frames {
			if !yield(f, err) {
				return
			}
			<-more
		}
	}
}

// A reader that falls behind its subscription loses live frames, the last ones among them, and has them from the stream.
func TestSlowReaderMissesNothing(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b := bustest.Connect(t, bustest.Server(t), bus.Config{Registerer: registry})
	written := make(chan struct{})
	reader, err := b.Open(t.Context(), alice, bus.ReadOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	last := write(t, b, alice, 0, start("a"))
	go func() {
		defer close(written)
		for i := range uint64(200) {
			last = write(t, b, alice, last, delta("a", i, "x"))
		}
		write(t, b, alice, last, end("a", 200))
	}()
	if events, err := drain(pausing(reader.Frames(deadline(t, patience)), written), 0); err != nil || len(events) != 200 {
		t.Errorf("%d events, error %v", len(events), err)
	}
	if n := counts(t, registry); n["weir_bus_slow_readers_total"] == 0 {
		t.Error("the reader was not slow")
	}
}

func TestReadFromEachIndex(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	all := []string{"0", "1", "2", "3", "4"}
	write(t, b, alice, 0, start("a"), delta("a", 0, all[:1]...), delta("a", 1, all[1:4]...), delta("a", 4, all[4:]...), end("a", 5))
	for from := range len(all) + 1 {
		if diff := cmp.Diff(append([]string(nil), all[from:]...), collect(t, b, alice, bus.ReadOptions{From: uint64(from)})); diff != "" {
			t.Errorf("from %d:\n%s", from, diff)
		}
	}
	unary := schemas.Identity{Tenant: "acme", Request: "unary"}
	answer := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "a", Count: 1, Data: []byte(`{"choices":[]}`), Summary: []byte(`{}`)}
	write(t, b, unary, 0, start("a"), answer)
	if got := collect(t, b, unary, bus.ReadOptions{}); len(got) != 1 || got[0] != `{"choices":[]}` {
		t.Errorf("unary: %q", got)
	}
	if got := collect(t, b, unary, bus.ReadOptions{From: 1}); len(got) != 0 {
		t.Errorf("unary beyond its answer: %q", got)
	}
}

func TestEventsThatAreGone(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	write(t, b, alice, 0, start("a"), delta("a", 0, "0", "1"), delta("a", 2, "2", "3"), end("a", 4))
	purge(t, server, alice, 2)
	for from := range uint64(2) {
		_, err := drain(b.Read(deadline(t, atOnce), alice, bus.ReadOptions{From: from}), from)
		wantCode(t, err, schemas.CodeStreamExpired)
	}
	for from, want := range map[uint64]int{2: 2, 3: 1, 4: 0} {
		if got := collect(t, b, alice, bus.ReadOptions{From: from}); len(got) != want {
			t.Errorf("from %d: %q, want %d events", from, got, want)
		}
	}
}

// A reader whose request is erased learns it instead of waiting for ever.
func TestErasedWhileRead(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	write(t, b, alice, 0, start("a"), delta("a", 0, "0"))
	_, err := drain(func(yield func(*schemas.Frame, error) bool) {
		for f, err := range b.Read(deadline(t, patience), alice, bus.ReadOptions{}) {
			if err == nil && f.Count > 0 {
				purge(t, server, alice, 0)
			}
			if !yield(f, err) {
				return
			}
		}
	}, 0)
	wantCode(t, err, schemas.CodeStreamExpired)
}

func TestLargeFrames(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	large := []string{strings.Repeat("l", schemas.InlineBytes), strings.Repeat("m", schemas.InlineBytes)}
	reader, err := b.Open(t.Context(), alice, bus.ReadOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	frame := delta("a", 1, large...)
	write(t, b, alice, 0, start("a"), delta("a", 0, "small"), frame, end("a", 3))
	if frame.Object == nil || !frame.Object.BelongsTo(alice) {
		t.Fatalf("the payload is not in the object store: %v", frame.Object)
	}
	want := append([]string{"small"}, large...)
	if events, err := drain(reader.Frames(deadline(t, patience)), 0); err != nil || !slices.Equal(want, events) {
		t.Errorf("live: %d events, error %v", len(events), err)
	}
	if got := collect(t, b, alice, bus.ReadOptions{From: 2}); !slices.Equal(want[2:], got) {
		t.Errorf("stored, inside the large frame: %d events", len(got))
	}
	n := 0
	for i, event := range chain(t, b, alice).Events() {
		if string(event) != want[i] {
			t.Errorf("chain: event %d differs", i)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("chain: %d events", n)
	}
}

// The connection breaks between a large frame and its payload.
func TestLargeFrameAcrossALostConnection(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	reader, err := b.Open(t.Context(), alice, bus.ReadOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	first := write(t, near, alice, 0, start("a"))
	large := strings.Repeat("l", schemas.InlineBytes+1)
	step := 0
	events, err := drain(func(yield func(*schemas.Frame, error) bool) {
		for f, err := range reader.Frames(deadline(t, patience)) {
			if step++; step == 1 { // the subscription is known to work
				asked := p.At(bustest.ToServer, "OBJ_"+schemas.BucketObjects, bustest.Drop)
				write(t, near, alice, first, delta("a", 0, large), end("a", 1))
				go func() { <-asked; p.Cut() }()
			}
			if !yield(f, err) {
				return
			}
		}
	}, 0)
	if err != nil || len(events) != 1 || events[0] != large {
		t.Errorf("%d events, error %v", len(events), err)
	}
}

func TestPayloadThatIsGone(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	frame := delta("a", 0, strings.Repeat("l", schemas.InlineBytes+1))
	write(t, b, alice, 0, start("a"), frame, end("a", 1))
	_, js := raw(t, server)
	store, err := js.ObjectStore(t.Context(), schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), frame.Object.Name); err != nil {
		t.Fatal(err)
	}
	_, err = drain(b.Read(deadline(t, atOnce), alice, bus.ReadOptions{}), 0)
	wantCode(t, err, schemas.CodeStreamExpired)
	if _, err := b.Chain(deadline(t, atOnce), alice); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("chain: %v, want ErrNotFound", err)
	}
}

// What is no frame ends a reader with an error, live and stored, and is no reason to wait.
func TestDamagedFrameEndsTheReader(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	live, err := b.Open(t.Context(), alice, bus.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := js.Publish(t.Context(), alice.Chunks(), []byte("not a frame")); err != nil {
		t.Fatal(err)
	}
	for name, frames := range map[string]frames{
		"live": live.Frames(deadline(t, patience)), "stored": b.Read(deadline(t, patience), alice, bus.ReadOptions{}),
	} {
		began := time.Now()
		if _, err := drain(frames, 0); err == nil || time.Since(began) > atOnce {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
	if _, err := b.Chain(deadline(t, atOnce), alice); err == nil {
		t.Error("the chain was read")
	}
}

// Only what the stream has republished is committed.
func TestUncommittedFramesAreNotShown(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	conn, _ := raw(t, server)
	forged := delta("z", 0, "forged")
	forge := func() {
		for _, h := range []schemas.Header{
			{}, {schemas.HeaderNatsSequence: {"1000"}, schemas.HeaderNatsLastSeq: {"0"}},
			{schemas.HeaderNatsStream: {"OTHER"}, schemas.HeaderNatsSequence: {"1000"}, schemas.HeaderNatsLastSeq: {"0"}},
			{schemas.HeaderNatsStream: {schemas.StreamReplies}},
		} {
			maps.Copy(h, forged.Encode())
			if err := conn.PublishMsg(&nats.Msg{Subject: alice.Replies(), Header: h, Data: forged.Data}); err != nil {
				t.Error(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	}
	reader, err := b.Open(t.Context(), alice, bus.ReadOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	first := write(t, b, alice, 0, start("a"))
	events, err := drain(func(yield func(*schemas.Frame, error) bool) {
		for f, err := range reader.Frames(deadline(t, patience)) {
			if err == nil && f.Kind == schemas.KindStart { // the reader is live
				forge()
				write(t, b, alice, first, delta("a", 0, "true"), end("a", 1))
			}
			if !yield(f, err) {
				return
			}
		}
	}, 0)
	if err != nil || len(events) != 1 || events[0] != "true" {
		t.Errorf("%q, error %v", events, err)
	}
}

func TestReaderOutlivesTheServer(t *testing.T) {
	t.Parallel()
	r := newRestartable(t)
	b := connect(t, r.server, bus.Config{URL: r.proxy.URL()})
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := write(t, b, alice, 0, start("a"), delta("a", 0, "0"))
	restarted := false
	events, err := drain(func(yield func(*schemas.Frame, error) bool) {
		for f, err := range b.Read(deadline(t, patience), alice, bus.ReadOptions{}) {
			if err == nil && f.Count > 0 && !restarted {
				restarted = true
				r.server.Close()
				r.start()
				write(t, b, alice, last, delta("a", 1, "1"), end("a", 2))
			}
			if !yield(f, err) {
				return
			}
		}
	}, 0)
	if err != nil || !slices.Equal(events, []string{"0", "1"}) {
		t.Errorf("%q, error %v", events, err)
	}
}

func TestTailBeginsNow(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for name, before := range map[string][]*schemas.Frame{
		"running": {start("a"), delta("a", 0, "old")},
		"queued":  nil,
	} {
		id := schemas.Identity{Tenant: "acme", Request: name}
		last := write(t, b, id, 0, before...)
		old := uint64(max(len(before)-1, 0))
		seen, written := make(chan struct{}), make(chan uint64, 1)
		go func() {
			next := old
			for reading := true; reading; next++ {
				last = write(t, b, id, last, delta("a", next, "new"))
				select {
				case <-seen:
					reading = false
				default:
				}
			}
			write(t, b, id, last, end("a", next))
			written <- next
		}()
		first, next := uint64(0), uint64(0)
		for f, err := range b.Read(deadline(t, patience), id, bus.ReadOptions{Tail: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if next == 0 {
				first, next = f.Index, f.Index
				close(seen)
			}
			if f.Index != next {
				t.Errorf("%s: event %d where %d should be", name, f.Index, next)
			}
			next = f.Next()
		}
		if all := <-written; first < old || next != all {
			t.Errorf("%s: events %d to %d of %d", name, first, next, all)
		}
	}
	ended := schemas.Identity{Tenant: "acme", Request: "ended"}
	write(t, b, ended, 0, start("a"), delta("a", 0, "old"), end("a", 1))
	n := 0
	for f, err := range b.Read(deadline(t, patience), ended, bus.ReadOptions{Tail: true}) {
		if n++; err != nil || f.Kind != schemas.KindEnd {
			t.Errorf("ended: %v, error %v", f, err)
		}
	}
	if n != 1 {
		t.Errorf("ended: %d frames, want the last one", n)
	}
}

func TestReaderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	reason := errors.New("the caller has gone")
	write(t, b, alice, 0, start("a"), delta("a", 0, "x"))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	for f, err := range b.Read(ctx, alice, bus.ReadOptions{}) {
		if last = err; err == nil && f.Count > 0 {
			cancel(reason)
		}
	}
	if !errors.Is(last, reason) {
		t.Errorf("the last thing was %v, want the cause", last)
	}
	if _, err := drain(b.Read(ctx, alice, bus.ReadOptions{}), 0); !errors.Is(err, reason) {
		t.Errorf("a context that has ended: %v, want the cause", err)
	}
	if reader, err := b.Open(ctx, alice, bus.ReadOptions{}); reader != nil || !errors.Is(err, reason) {
		t.Errorf("a reader %v that nobody will close, error %v", reader, err)
	}
	n := 0
	for range b.Read(t.Context(), alice, bus.ReadOptions{}) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d frames after the loop was left", n)
	}
	if _, err := b.Open(t.Context(), schemas.Identity{Tenant: "a.b", Request: "*"}, bus.ReadOptions{}); err == nil {
		t.Error("a subject with wildcards was opened")
	}
}

// purge does what age does to a chain: all but its last frames are gone.
func purge(t testing.TB, server *natsd.Server, id schemas.Identity, keep uint64) {
	t.Helper()
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), schemas.StreamReplies)
	if err == nil {
		err = stream.Purge(t.Context(), jetstream.WithPurgeSubject(id.Replies()), jetstream.WithPurgeKeep(keep))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want schemas.Code) *schemas.Error {
	t.Helper()
	e, ok := errors.AsType[*schemas.Error](err)
	if !ok || e.Code != want {
		t.Errorf("error %v, want code %s", err, want)
		return &schemas.Error{}
	}
	return e
}
