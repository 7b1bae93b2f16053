package ingest

import (
	"context"
	"sync"
	"time"
)

// cancelsAtOnce bounds the cancels under way when many callers leave together.
const cancelsAtOnce = 256

// readers remembers who reads which request in this process, and so when nobody does any more. It is only a memory: a
// process that dies forgets, and cancels nothing.
type readers struct {
	grace    time.Duration
	detached time.Duration

	mu      sync.Mutex
	entries map[identity]*attendance
}

// attendance is what is known of the readers of one request that is not finished.
type attendance struct {
	here      int  // readers in this process now
	keep      bool // the request goes on without a reader for a while: it is asked for, or it had a second reader
	shared    bool // a reader is, or was, in another process or on a second connection
	looked    bool // no reader so far may end the request
	finished  bool // a reader saw the end
	idleSince time.Time
	announced time.Time
}

func newReaders(grace, detached time.Duration) *readers {
	return &readers{grace: grace, detached: detached, entries: make(map[identity]*attendance)}
}

// attach counts a reader in. With keep the request outlives its readers for the detached time instead of the grace;
// a second reader has the same effect. The reader must be counted out with detach.
func (r *readers) attach(id identity, keep, shared bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.entries[id]
	if a == nil {
		a = &attendance{}
		r.entries[id] = a
	} else {
		keep = true
	}
	a.here++
	a.keep = a.keep || keep
	a.shared = a.shared || shared
	a.looked = false
}

// look counts a reader in that may end no request: it keeps this one going while it reads, and cancels nothing by leaving.
// It must be counted out with detach.
func (r *readers) look(id identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.entries[id]
	if a == nil {
		a = &attendance{looked: true}
		r.entries[id] = a
	}
	a.here++
	a.keep, a.shared = true, true
}

// keep says of a request that is read here that it goes on when its readers leave.
func (r *readers) keep(id identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.entries[id]; a != nil {
		a.keep = true
	}
}

// share says of a request that is read here that it may have, or have had, a reader in another process.
func (r *readers) share(id identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.entries[id]; a != nil {
		a.shared = true
	}
}

// detach counts a reader out; finished says that it saw the request's end, or that there is no request. It reports
// whether it was the last one of a request that goes on, and for how long that one waits for another.
func (r *readers) detach(id identity, finished bool) (last bool, patience time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.entries[id]
	a.here--
	a.finished = a.finished || finished
	if a.here > 0 {
		return false, 0
	}
	if a.finished || a.looked {
		delete(r.entries, id)
		return false, 0
	}
	a.idleSince = time.Now()
	return true, r.patience(a)
}

// known reports whether the request is one that this process reads, or did just now.
func (r *readers) known(id identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[id] != nil
}

// heard makes the function that takes the hints of other processes that they read a request. The first hint about a
// request that is read here too is answered, so that both sides know. A process hears its own hints as well; they come
// only while the request is shared already, and change nothing then.
func (r *readers) heard(answer func(identity)) func(identity) {
	return func(id identity) {
		if r.hint(id) {
			answer(id)
		}
	}
}

func (r *readers) hint(id identity) (answer bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.entries[id]
	if a == nil {
		return false
	}
	answer = a.here > 0 && !a.shared
	a.keep, a.shared = true, true
	if a.here == 0 {
		a.idleSince = time.Now()
	}
	return answer
}

// run acts on what time brings until ctx ends: it cancels requests that nobody has read for too long, and tells other
// processes about shared ones that are read here. It waits for what it began.
func (r *readers) run(ctx context.Context, cancel, announce func(context.Context, identity)) {
	var owned sync.WaitGroup
	defer owned.Wait()
	places := make(chan struct{}, cancelsAtOnce)
	ticker := time.NewTicker(max(min(r.grace, r.detached)/10, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		left, shared := r.due(time.Now())
		for _, id := range left {
			owned.Go(func() {
				select {
				case places <- struct{}{}:
					defer func() { <-places }()
					cancel(ctx, id)
				case <-ctx.Done():
				}
			})
		}
		for _, id := range shared {
			announce(ctx, id)
		}
	}
}

// due takes out the requests that have been without a reader for too long, and names the shared ones that it is time to
// announce again.
func (r *readers) due(now time.Time) (left, announce []identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.entries {
		switch {
		case a.here == 0 && now.Sub(a.idleSince) >= r.patience(a):
			delete(r.entries, id)
			left = append(left, id)
		case a.here > 0 && a.shared && now.Sub(a.announced) >= r.detached/3:
			a.announced = now
			announce = append(announce, id)
		}
	}
	return left, announce
}

func (r *readers) patience(a *attendance) time.Duration {
	if a.keep {
		return r.detached
	}
	return r.grace
}
