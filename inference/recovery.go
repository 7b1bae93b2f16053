package inference

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

// recovery decides which call of an attempt is made next, until one has said something that callers see. What fails after
// that is not its business. It is the one place that knows the order: another backend of the model, which is called at
// once; the same again, after a pause; then the fallback models, one after the other. It is owned by one goroutine.
type recovery struct {
	models   []*model                               // the model asked for, then those that may stand in for it
	backends []Backend                              // which can make the call; nil = all
	call     func(ctx context.Context, t *try) said // makes it, and yields events as callers see them
	record   func(*model, schemas.Try)              // is told of every call when it has ended
	ask      balance.Ask                            // what it needs
	stream   bool                                   // the answer comes in events
	attempt  int
	deadline time.Time

	number int            // calls so far
	shown  *schemas.Error // what the caller is told if there is no answer
	paid   bool           // the next call is paid for

	at     int           // in models: whose turn it is
	calls  int           // of that model
	called []Backend     // of that model
	barred []Backend     // of these, which are not to be called again
	asked  time.Duration // what the last one that failed wants to be left alone for
	waited time.Duration // for a free place at that model
	pause  *backoff.ExponentialBackOff
	least  int // a model must have a larger context than this
}

// events makes calls until one says something, and yields it and all that follows. The error is that of the last call once
// something is visible, else the one that tells the caller most.
func (p *recovery) events(ctx context.Context) said {
	return func(yield func(Event, error) bool) {
		p.models[0].request()
		for {
			t, failed := p.next(ctx)
			if failed != nil {
				fail(yield, failed)
				return
			}
			if t, failed = p.run(ctx, t, yield); failed == nil {
				return
			}
			if t.visible {
				fail(yield, failed)
				return
			}
			if p.over(t, failed) {
				fail(yield, p.shown)
				return
			}
		}
	}
}

// run makes a call, or two of which one counts. It returns the one that does.
func (p *recovery) run(ctx context.Context, t *try, yield func(Event, error) bool) (*try, *schemas.Error) {
	var failed *schemas.Error
	if hedge := p.models[0].hedge; hedge != nil && p.stream && p.number == 1 && p.at == 0 && hedge.patience() > 0 {
		t, failed = p.hedged(ctx, t, yield)
	} else {
		defer t.place.release(balance.Outcome{}) // should it panic
		failed = t.run(p.call(ctx, t), yield)
		t.place.release(outcomeOf(t, failed))
	}
	p.ended(t, failed)
	return t, failed
}

// ended records a call.
func (p *recovery) ended(t *try, failed *schemas.Error) {
	if t.called {
		p.record(t.place.model, t.record(p.attempt, failed))
	}
}

// next is the next call, made ready. It blocks while a pause lasts.
func (p *recovery) next(ctx context.Context) (*try, *schemas.Error) {
	for ; p.at < len(p.models); p.advance() {
		if t, failed := p.ofModel(ctx, p.models[p.at]); t != nil || failed != nil {
			return t, failed
		}
	}
	if p.paid {
		p.models[0].budget.refund()
	}
	if p.shown == nil {
		p.shown = schemas.Errorf(schemas.CodeUnavailable, "model %q has no backend for this request; try again", p.models[0].name)
	}
	return nil, p.shown
}

// advance turns to the next model, about which nothing is known yet.
func (p *recovery) advance() {
	p.at, p.calls, p.called, p.barred = p.at+1, 0, nil, nil
	p.asked, p.waited, p.pause = 0, 0, nil
}

// ofModel is the next call of one model; neither a call nor an error means that the model has none.
func (p *recovery) ofModel(ctx context.Context, m *model) (*try, *schemas.Error) {
	if p.calls >= p.retry().MaxTries || p.least > 0 && m.context <= p.least {
		return nil, nil
	}
	if p.number > 0 && !p.paid {
		if !p.models[0].budget.spend() {
			return nil, p.shown
		}
		p.paid = true
	}
	place, none := p.pick(m, p.called)
	switch {
	case none == nil:
		return p.begin(place), nil
	case len(p.barred) == len(p.called): // those that have been called are out of the question
		return p.whenFree(ctx, m, none)
	}
	if p.asked > p.retry().Max {
		return nil, nil
	}
	if p.pause == nil {
		p.pause = p.retry().pauses()
	}
	if done, failed := p.sleep(ctx, max(p.pause.NextBackOff(), p.asked)); !done {
		return nil, failed
	}
	if place, none = p.pick(m, p.barred); none != nil {
		return p.whenFree(ctx, m, none)
	}
	return p.begin(place), nil
}

// whenFree waits for a place at a model that has none at the moment, no longer than a pause may be, and hardly while
// another model could answer.
func (p *recovery) whenFree(ctx context.Context, m *model, none *balance.UnavailableError) (*try, *schemas.Error) {
	most := p.retry().Max
	if p.at < len(p.models)-1 {
		most = p.retry().Initial
	}
	for none.Reason != balance.Nobody {
		changed := m.pool.Changed()
		place, still := p.pick(m, p.barred)
		if still == nil {
			return p.begin(place), nil
		}
		none = still
		p.out(m, none)
		left := most - p.waited
		if none.Again > left || left <= 0 || tooLong(ctx, p.deadline, 0) {
			return nil, nil
		}
		began := time.Now()
		if none.Again > 0 {
			left = none.Again
		}
		if failed := wait(ctx, left, changed); failed != nil {
			return nil, failed
		}
		p.waited += time.Since(began)
	}
	return nil, nil
}

// out notes for the caller that a model has no place, unless there is more to tell.
func (p *recovery) out(m *model, none *balance.UnavailableError) {
	if p.shown != nil && (p.at > 0 || p.number > 0) {
		return
	}
	after := max(none.Again, time.Second)
	p.shown = schemas.Errorf(schemas.CodeUnavailable, "model %q cannot answer at the moment: %s; try again in %v", m.name, none, after.Round(time.Millisecond)).
		WithRetryAfter(after)
}

// sleep waits for d if there is time for it.
func (p *recovery) sleep(ctx context.Context, d time.Duration) (done bool, failed *schemas.Error) {
	if tooLong(ctx, p.deadline, d) {
		return false, nil
	}
	failed = wait(ctx, d, nil)
	return failed == nil, failed
}

func (p *recovery) pick(m *model, not []Backend) (*place, *balance.UnavailableError) {
	return m.pick(p.at > 0, p.ask, excluding(not, p.backends))
}

func (p *recovery) begin(place *place) *try {
	p.number++
	p.calls++
	p.paid = false
	t := &try{place: place, number: p.number, mode: p.mode(place.backend), started: time.Now()}
	if !slices.Contains(p.called, place.backend) {
		p.called = append(p.called, place.backend)
	}
	return t
}

// mode is why a backend of the current model is called.
func (p *recovery) mode(b Backend) schemas.TryMode {
	switch {
	case p.at > 0 && p.calls == 1:
		return schemas.TryFallback
	case slices.Contains(p.called, b):
		return schemas.TryRetry
	case p.number > 1:
		return schemas.TryFailover
	}
	return ""
}

// over learns from a call that failed, and reports whether no other may follow.
func (p *recovery) over(t *try, e *schemas.Error) bool {
	p.show(e)
	p.asked = e.RetryAfter
	switch judge(e) {
	case elsewhere:
		p.barred = append(p.barred, t.place.backend)
	case larger:
		if p.least = t.place.model.context; p.least == 0 {
			p.least = math.MaxInt // unknown, so that no other is known to be larger
		}
		p.advance()
	case stop:
		if p.at == 0 || !refusesOnly(e) {
			return true
		}
		p.advance()
	}
	return false
}

// show keeps for the caller what the model that was asked for said last. The failure of a fallback counts only when it may
// pass and the other would not.
func (p *recovery) show(e *schemas.Error) {
	if p.at == 0 || p.shown == nil || !p.shown.Retryable() && e.Retryable() {
		p.shown = e
	}
}

func (p *recovery) retry() *Retry { return &p.models[0].retry }
