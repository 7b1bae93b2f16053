package inference

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

// Hedge is when a stream is asked for a second time because its first token is late. Whoever begins first gives the answer;
// the other call is cancelled. The zero value is never.
type Hedge struct {
	After    time.Duration // how late the first token may be
	P95      bool          // instead: what 95 of 100 first tokens took lately
	MaxShare int           // hedges per hundred requests, within the model's retry budget; default 10
}

// Validate reports a setting that cannot be meant.
func (h Hedge) Validate() error {
	if h.After < 0 || h.MaxShare < 0 || h.MaxShare > 100 {
		return errors.New("hedge: after must not be negative, and max_share is 1 to 100: leave it out for 10")
	}
	return nil
}

// hedger decides when a model's requests are hedged. It is safe for concurrent use.
type hedger struct {
	after time.Duration // 0 = p95
	share *budget

	mu      sync.Mutex
	samples []time.Duration // to first tokens, the last p95Samples
	oldest  int             // of samples, when there are so many
	fresh   int             // since p95 was found
	p95     time.Duration   // 0 = not known yet
}

// The samples that p95 is found from: how many are kept, how many must come before it is found again, and so at first.
const (
	p95Samples = 200
	p95Every   = 20
)

// newHedger returns nil when nothing is hedged.
func newHedger(h Hedge) *hedger {
	if h.After == 0 && !h.P95 {
		return nil
	}
	if h.MaxShare == 0 {
		h.MaxShare = 10
	}
	made := &hedger{share: newBudget(h.MaxShare, 1, 0)}
	if !h.P95 {
		made.after = h.After
	}
	return made
}

// patience is how long a first token may take; 0 = it is not known.
func (h *hedger) patience() time.Duration {
	if h.after > 0 {
		return h.after
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.p95
}

// took notes how long a first token took, or was waited for at least.
func (h *hedger) took(d time.Duration) {
	if h == nil || h.after > 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) < p95Samples {
		h.samples = append(h.samples, d)
	} else {
		h.samples[h.oldest] = d
		h.oldest = (h.oldest + 1) % p95Samples
	}
	if h.fresh++; h.fresh < p95Every {
		return
	}
	sorted := slices.Sorted(slices.Values(h.samples))
	h.fresh, h.p95 = 0, max(sorted[len(sorted)*95/100], time.Millisecond)
}

// racer is a call whose first event another goroutine waits for.
type racer struct {
	try    *try
	stop   context.CancelCauseFunc
	next   func() (Event, error, bool)
	done   func()
	ready  chan struct{} // closed when the first event is known, and nobody is in next
	ending sync.Once

	event    Event
	err      error
	ok       bool
	panicked any
}

// race starts a call. Whoever starts it must finish it.
func (p *recovery) race(ctx context.Context, t *try) *racer {
	r := &racer{try: t, ready: make(chan struct{})}
	ctx, r.stop = context.WithCancelCause(ctx)
	r.next, r.done = iter.Pull2(p.call(ctx, t))
	go r.begin()
	return r
}

func (r *racer) begin() {
	defer close(r.ready)
	defer func() { r.panicked = recover() }() // it goes on where the call is judged
	r.event, r.err, r.ok = r.next()
}

// run passes on what a racer that is ready says to its end, and finishes it.
func (r *racer) run(yield func(Event, error) bool) *schemas.Error {
	if r.panicked != nil {
		panic(r.panicked)
	}
	failed := r.try.run(r.events, yield)
	r.finish(outcomeOf(r.try, failed))
	return failed
}

func (r *racer) events(yield func(Event, error) bool) {
	for event, err, ok := r.event, r.err, r.ok; ok; event, err, ok = r.next() {
		if !yield(event, err) {
			return
		}
	}
}

// finish ends the call and gives its place back. It returns when nothing of the call is left. Only the first time counts.
func (r *racer) finish(o balance.Outcome) {
	r.ending.Do(func() {
		r.stop(nil)
		<-r.ready
		r.done()
		r.try.place.release(o)
	})
}

// errOutrun is shared and never changed.
var errOutrun = schemas.Errorf(schemas.CodeCancelled, "another call of the request answered first")

// outrun cancels a racer whose answer nobody waits for any more, and returns it as it stands in the result.
func (p *recovery) outrun(r *racer) schemas.Try {
	r.stop(errOutrun)
	r.finish(balance.Outcome{})
	p.models[0].hedge.took(time.Since(r.try.started)) // at least
	return r.try.record(p.attempt, errOutrun)
}

// hedged makes the first call of a request, and a second one beside it when its first token is late. It returns the call
// that gave the answer, or that failed last, with its error. All calls but that one are recorded.
func (p *recovery) hedged(ctx context.Context, t *try, yield func(Event, error) bool) (*try, *schemas.Error) {
	first := p.race(ctx, t)
	defer first.finish(balance.Outcome{})
	late := time.NewTimer(p.models[0].hedge.patience())
	defer late.Stop()
	select {
	case <-first.ready:
		return t, first.run(yield)
	case <-late.C:
	}
	other := p.hedge()
	if other == nil {
		<-first.ready
		return t, first.run(yield)
	}
	second := p.race(ctx, other)
	defer second.finish(balance.Outcome{})
	select {
	case <-first.ready:
		return p.decide(first, second, yield)
	case <-second.ready:
		return p.decide(second, first, yield)
	}
}

// decide goes on with the racer that was ready first, and with the other only when that has failed in a way that does
// not settle the matter.
func (p *recovery) decide(r, other *racer, yield func(Event, error) bool) (*try, *schemas.Error) {
	if !r.ok || r.err == nil || r.panicked != nil {
		outrun := make(chan schemas.Try, 1)
		go func() { outrun <- p.outrun(other) }()
		failed := r.run(yield)
		p.record(other.try.place.model, <-outrun)
		return r.try, failed
	}
	failed := r.run(yield)
	if v := judge(failed); v == stop || v == larger {
		p.record(other.try.place.model, p.outrun(other))
		return r.try, failed
	}
	p.ended(r.try, failed)
	p.over(r.try, failed)
	<-other.ready
	return other.try, other.run(yield)
}

// hedge is a second call, ready to be made; nil when there may be none.
func (p *recovery) hedge() *try {
	m := p.models[0]
	if p.retry().MaxTries < 2 || !m.hedge.share.spend() {
		return nil
	}
	if !m.budget.spend() {
		m.hedge.share.refund()
		return nil
	}
	place, none := p.pick(m, p.called)
	if none != nil && len(m.backends) == 1 {
		place, none = p.pick(m, nil)
	}
	if none != nil {
		m.budget.refund()
		m.hedge.share.refund()
		return nil
	}
	t := p.begin(place)
	t.mode = schemas.TryHedge
	return t
}
