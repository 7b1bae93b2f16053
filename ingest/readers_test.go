package ingest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	alice = identity{Tenant: "t", Request: "alice"}
	bob   = identity{Tenant: "t", Request: "bob"}
)

// ledger records what readers.run does and when.
type ledger struct {
	mu        sync.Mutex
	began     time.Time
	cancelled map[identity]time.Duration
	announced map[identity]int
}

func watch(t *testing.T, r *readers) *ledger {
	l := &ledger{began: time.Now(), cancelled: map[identity]time.Duration{}, announced: map[identity]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go r.run(ctx,
		func(_ context.Context, id identity) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.cancelled[id] = time.Since(l.began)
		},
		func(_ context.Context, id identity) { l.mu.Lock(); defer l.mu.Unlock(); l.announced[id]++ })
	return l
}

// after lets time pass and tells when the request was cancelled, 0 for not at all.
func (l *ledger) after(d time.Duration, id identity) time.Duration {
	time.Sleep(d)
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cancelled[id]
}

// times tells how often the request was announced.
func (l *ledger) times(id identity) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.announced[id]
}

func within(got, want time.Duration) bool { return got >= want && got <= want+2*time.Second }

func TestReaders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		play func(*readers)
		want time.Duration // of the cancel; 0 for none within an hour
	}{
		"the only reader leaves":        {func(r *readers) { r.attach(alice, false, false); r.detach(alice, false) }, 10 * time.Second},
		"it stays":                      {func(r *readers) { r.attach(alice, false, false) }, 0},
		"it saw the end":                {func(r *readers) { r.attach(alice, false, false); r.detach(alice, true) }, 0},
		"it asked to continue":          {func(r *readers) { r.attach(alice, true, false); r.detach(alice, false) }, 5 * time.Minute},
		"another request does not help": {func(r *readers) { r.attach(bob, true, false); r.attach(alice, false, false); r.detach(alice, false) }, 10 * time.Second},
		"a second reader stays": {func(r *readers) {
			r.attach(alice, false, false)
			r.attach(alice, true, true)
			r.detach(alice, false)
		}, 0},
		"a second reader was there": {func(r *readers) {
			r.attach(alice, false, false)
			r.attach(alice, false, false)
			r.detach(alice, false)
			r.detach(alice, false)
		}, 5 * time.Minute},
		"the second reader saw the end": {func(r *readers) {
			r.attach(alice, false, false)
			r.attach(alice, true, true)
			r.detach(alice, true)
			r.detach(alice, false)
		}, 0},
		"it returns within the grace": {func(r *readers) {
			r.attach(alice, false, false)
			r.detach(alice, false)
			time.Sleep(5 * time.Second)
			r.attach(alice, true, true)
		}, 0},
		"another process reads": {func(r *readers) {
			r.attach(alice, false, false)
			r.hint(alice)
			r.detach(alice, false)
		}, 5 * time.Minute},
		"another process begins to read": {func(r *readers) {
			r.attach(alice, false, false)
			r.detach(alice, false)
			time.Sleep(8 * time.Second)
			r.hint(alice)
		}, 5*time.Minute + 8*time.Second},
		"another process reads on": {func(r *readers) {
			r.attach(alice, true, true)
			r.detach(alice, false)
			for range 40 {
				time.Sleep(100 * time.Second)
				r.hint(alice)
			}
		}, 4000*time.Second + 5*time.Minute},
		"an onlooker leaves": {func(r *readers) { r.look(alice); r.detach(alice, false) }, 0},
		"an onlooker stays": {func(r *readers) {
			r.attach(alice, false, false)
			r.look(alice)
			r.detach(alice, false)
		}, 0},
		"an onlooker leaves last": {func(r *readers) {
			r.attach(alice, false, false)
			r.look(alice)
			r.detach(alice, false)
			r.detach(alice, false)
		}, 5 * time.Minute},
		"a reader comes to an onlooker, and both leave": {func(r *readers) {
			r.look(alice)
			r.attach(alice, false, true)
			r.detach(alice, false)
			r.detach(alice, false)
		}, 5 * time.Minute},
		"a hint about nothing": {func(r *readers) { r.hint(alice) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReaders(10*time.Second, 5*time.Minute)
				l := watch(t, r)
				c.play(r)
				got := l.after(2*time.Hour, alice)
				if c.want == 0 && got != 0 || c.want != 0 && !within(got, c.want) {
					t.Errorf("cancelled after %s, want %s", got, c.want)
				}
			})
		})
	}
}

func TestSharedRequestsAreAnnounced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReaders(10*time.Second, 5*time.Minute)
		l := watch(t, r)
		r.attach(alice, true, true)
		r.attach(bob, false, false)
		l.after(time.Hour, alice)
		if n := l.times(alice); n < 30 || n > 40 {
			t.Errorf("announced %d times in an hour", n)
		}
		if n := l.times(bob); n != 0 {
			t.Errorf("announced %d times although nobody else reads it", n)
		}
		r.share(bob)
		l.after(time.Hour, bob)
		if n := l.times(bob); n < 30 || n > 40 {
			t.Errorf("announced %d times in an hour since somebody else may read it", n)
		}
		r.share(identity{Tenant: "t", Request: "nobody's"})
		r.detach(alice, false)
		before := l.times(alice)
		l.after(time.Hour, alice)
		if l.times(alice) != before {
			t.Error("announced although nobody reads it here")
		}
	})
}

func TestFirstHintIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	r := newReaders(time.Second, time.Minute)
	answers := 0
	heard := r.heard(func(identity) { answers++ })
	heard(alice)
	r.attach(alice, false, false)
	heard(alice)
	heard(alice)
	if answers != 1 {
		t.Errorf("%d answers, want 1", answers)
	}
}

// What is logged about a request without readers is what will happen to it, also when it came to be kept later on.
func TestLastReaderToldOfThePatience(t *testing.T) {
	t.Parallel()
	r := newReaders(10*time.Second, 5*time.Minute)
	r.attach(alice, false, false)
	r.attach(bob, false, false)
	r.keep(bob)
	for id, want := range map[identity]time.Duration{alice: r.grace, bob: r.detached} {
		if last, patience := r.detach(id, false); !last || patience != want {
			t.Errorf("%s: last %v, patience %s, want %s", id, last, patience, want)
		}
	}
}
