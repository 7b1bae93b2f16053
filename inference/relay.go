package inference

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

const (
	// heirPatience is how long a run is kept for an heir while no router can say whether there is one: longer than another
	// router takes to serve the partition and to learn who follows.
	heirPatience = 15 * time.Second
	// heirPause is between two questions.
	heirPause = 250 * time.Millisecond
)

// relay lets a run outlive the request that it runs for, while equal requests are given its answer. When that request is
// cancelled, or late, it ends by itself; the model goes on for its heir, into the heir's chain, and is not called again
// (docs/adr/0023). Only the goroutine of the run uses it, but for what is said otherwise.
type relay struct {
	r    *run
	left chan leaving // whoever tells uses it

	// Of the attempt.
	stop   context.CancelCauseFunc // of its calls
	claim  *claim
	said   *answer
	asked  atomic.Pointer[model] // that was called last; the calls' goroutine sets it
	voice  *voice                // how the heir is told; nil before there is one
	single bool                  // the answer is that of one attempt, whoever had it

	heard   schemas.Identity // whose end it would hear of
	unwatch func()
	paid    *schemas.Usage    // what the requests before this one are charged for
	owed    []*schemas.Result // theirs, not stored yet
	had     map[string]bool   // the requests whose answer is this run's
	over    bool              // the request has ended, and nobody has the run
	passed  bool              // the run is no longer that of the item's request
}

// leaving is that a request is to end, and why.
type leaving struct {
	id    schemas.Identity
	cause *schemas.Error
}

func newRelay(r *run) *relay {
	return &relay{r: r, left: make(chan leaving, 2), unwatch: func() {}, had: make(map[string]bool)}
}

// callContext lives until the total time of the model is over, whatever becomes of the request.
func (v *relay) callContext(ctx context.Context) (context.Context, func()) {
	v.voice, v.single = nil, false
	ctx, v.stop = endingAt(ctx, v.r.began.Add(v.r.m.total), v.r.m.overdue)
	v.attend(v.r.work)
	return ctx, func() {
		v.unwatch()
		v.heard = schemas.Identity{}
		v.stop(nil)
	}
}

// attend begins to hear when a request is to end, instead of the one before.
func (v *relay) attend(work *schemas.Work) {
	if v.heard == work.Identity {
		return
	}
	v.unwatch()
	v.heard = work.Identity
	for len(v.left) > 0 {
		<-v.left // about the one before
	}
	tell := func(cause error) {
		select {
		case v.left <- leaving{work.Identity, schemas.AsError(cause)}:
		default: // one that is told is enough
		}
	}
	hints := v.r.w.runs.watch(work.Identity, tell)
	late := time.AfterFunc(time.Until(deadlineOf(work)), func() { tell(errDeadline) })
	v.unwatch = func() { v.r.w.runs.unwatch(hints); late.Stop() }
}

// events yields what the calls of an attempt say, to whoever has the run. They are made in a goroutine of their own, so that
// the run can be handed on while the model is silent.
func (v *relay) events(ctx context.Context, generate said) said {
	return func(yield func(Event, error) bool) {
		p := newPump(v.r.w.crew, generate)
		defer p.close()
		more := false
		for {
			left := v.left
			if more {
				left = nil // what is being gathered goes first
			}
			select {
			case l := <-left:
				if l.id != v.r.work.Identity {
					continue
				}
				if err := v.pass(ctx, l.cause); err != nil {
					v.stop(err)
					yield(Event{}, err)
					return
				}
			case s, ok := <-p.said:
				if !ok {
					return
				}
				if more = s.event.More; s.err == nil {
					s.event.Data = v.voice.say(s.event.Data)
				}
				if !yield(s.event, s.err) {
					return
				}
				p.next()
			}
		}
	}
}

// pass ends the request and lets its heir have the run. When there is none the calls are stopped, and the run ends as one
// that nobody shares; if that is found out only after the request has ended, the error says why.
func (v *relay) pass(ctx context.Context, cause *schemas.Error) error {
	if v.claim.wait() != nil {
		return nil // the calls are stopped; whoever has the chain ends it
	}
	heir, err := v.ask(ctx)
	if err == nil && heir == nil {
		v.stop(cause)
		return nil
	}
	if heir != nil {
		v.attend(heir) // who sees that this one has ended may cancel that one
	}
	if err := v.end(ctx, cause, heir); err != nil {
		return err
	}
	return v.handOn(ctx, cause, heir)
}

// overtaken passes the run on when its write was refused because somebody else has ended the request for good: whoever
// cancels does when the worker does not seem to hear. What was to be written is said to the heir instead.
func (v *relay) overtaken(ctx context.Context, refused error, f *schemas.Frame) error {
	if !errors.Is(refused, bus.ErrFenced) {
		return &lostError{refused}
	}
	cause, err := v.cancelled(ctx)
	if err != nil {
		return &lostError{refused}
	}
	v.settle(ctx, nil)
	before, said := v.voice, slices.ContainsFunc(v.r.chain.whole().Frames, f.Same)
	heir, err := v.ask(ctx)
	if err == nil && heir == nil {
		v.over = true
		return cause
	}
	if err := v.handOn(ctx, cause, heir); err != nil {
		return err
	}
	if said { // it was committed before the end, and the heir has been told it with the rest
		return nil
	}
	if v.voice != before {
		f.Data = v.voice.sayAll(f)
	}
	if err := v.r.write(ctx, f); err != nil {
		return &lostError{err}
	}
	return nil
}

// cancelled reads the chain and returns why somebody else has ended it without its answer. It is [bus.ErrFenced] when it has
// ended otherwise, or another worker had it before: that one passes it on.
func (v *relay) cancelled(ctx context.Context) (*schemas.Error, error) {
	chain, err := v.r.w.bus.Chain(context.WithoutCancel(ctx), v.r.work.Identity)
	if err != nil {
		return nil, err
	}
	start, terminal := chain.Start(), chain.Terminal()
	if start == nil || start.Writer != v.r.writer || terminal == nil || terminal.Kind != schemas.KindError {
		return nil, bus.ErrFenced
	}
	cause, err := schemas.DecodeError(terminal.Data)
	if err != nil || cause.CancelledBy() == "" {
		return nil, bus.ErrFenced
	}
	v.r.chain.set(chain)
	return cause, nil
}

// ask asks once who inherits the run.
func (v *relay) ask(ctx context.Context) (*schemas.Work, error) {
	return v.r.w.bus.Heir(ctx, v.r.m.token, v.r.work.Identity)
}

// end ends the request, which is charged for what has been said to it.
func (v *relay) end(ctx context.Context, cause *schemas.Error, heir *schemas.Work) error {
	r := v.r
	summary := &schemas.Summary{
		Status: schemas.StatusOf(cause), CancelledBy: cause.CancelledBy(), Attempts: r.attempt, DurationMS: milliseconds(time.Since(r.began)), Usage: v.spent(),
	}
	if m := v.asked.Load(); m != nil {
		summary.Cost = m.price().Of(summary.Usage)
	}
	frame := &schemas.Frame{Kind: schemas.KindError, Data: cause.Encode(), Summary: headerSummary(summary), Trace: bus.TraceParent(ctx)}
	if heir != nil {
		frame.Heir = heir.Request.Request
	}
	if err := r.write(ctx, frame); err != nil {
		if _, cancelled := v.cancelled(ctx); cancelled != nil {
			return &lostError{err}
		}
		summary = nil
	}
	v.settle(ctx, summary)
	return nil
}

// spent is what the request is charged for.
func (v *relay) spent() *schemas.Usage {
	told := v.r.told()
	usage := told.usage
	if usage == nil {
		tokens := max(told.spoken, v.said.tokens)
		if tokens == 0 {
			return nil // nothing was said to it: the heir is charged for all
		}
		usage = estimate(v.r.body, tokens)
	}
	return v.rest(usage)
}

// rest is what of a usage the requests before are not charged for.
func (v *relay) rest(whole *schemas.Usage) *schemas.Usage {
	if v == nil || v.paid == nil || whole == nil {
		return whole
	}
	rest := &schemas.Usage{
		PromptTokens:     max(0, whole.PromptTokens-v.paid.PromptTokens),
		CompletionTokens: max(0, whole.CompletionTokens-v.paid.CompletionTokens), Estimated: whole.Estimated,
	}
	rest.TotalTokens = rest.PromptTokens + rest.CompletionTokens
	return rest
}

// settle keeps the result of the request, whose chain has ended. What cannot be stored now is stored before the item is
// acknowledged.
func (v *relay) settle(ctx context.Context, summary *schemas.Summary) {
	r := v.r
	result := record.Build(r.work, r.body, r.chain.whole(), summary)
	if err := r.w.bus.PutResult(context.WithoutCancel(ctx), result); err != nil {
		r.log().Warn("the result of a request whose run goes on was not stored; it is tried again when the run ends", "error", err)
		v.owed = append(v.owed, result)
	}
	r.w.meters.finished(r.m.name, result)
	if paid := result.Usage; paid != nil {
		if v.paid == nil {
			v.paid = &schemas.Usage{}
		}
		v.paid.PromptTokens += paid.PromptTokens
		v.paid.CompletionTokens += paid.CompletionTokens
	}
}

// pay stores the results that could not be stored before.
func (v *relay) pay(ctx context.Context) error {
	for v != nil && len(v.owed) > 0 {
		if err := v.r.w.bus.PutResult(ctx, v.owed[0]); err != nil {
			return err
		}
		v.owed = v.owed[1:]
	}
	return nil
}

// handOn gives the run to the heir of a request that has ended, or to the heir of that one should it have ended as well. While
// no router can tell who it is, the model waits.
func (v *relay) handOn(ctx context.Context, cause *schemas.Error, heir *schemas.Work) error {
	id := v.r.work.Identity
	for given := time.Now(); ; {
		taken, err := false, error(nil)
		if heir != nil {
			if taken, err = v.take(ctx, heir); err != nil {
				return err
			}
			id = heir.Identity
		}
		if taken {
			v.passed = true
			v.r.w.meters.inherited.Inc()
			v.r.log().Info("the run goes on for an equal request", "attempt", v.r.attempt)
			return nil
		}
		heir, err = v.r.w.bus.Heir(ctx, v.r.m.token, id)
		switch {
		case err == nil && heir == nil, time.Since(given) > heirPatience:
			v.over = true
			return cause
		case err == nil:
			continue
		}
		if failed := wait(ctx, heirPause, nil); failed != nil {
			v.over = true
			return failed
		}
	}
}

// take claims the chain of an heir, behind what it has been given of the answer, and gives it the rest. It reports false
// when the heir has ended, or was given a part of another answer. When another worker runs it, whoever follows it is that one's.
func (v *relay) take(ctx context.Context, heir *schemas.Work) (bool, error) {
	r := v.r
	v.attend(heir)
	v.note()
	ctx = context.WithoutCancel(ctx)
	body, err := r.w.bus.Body(ctx, &heir.Request)
	if err != nil {
		return false, &lostError{err}
	}
	for range maxRounds {
		chain, err := r.w.bus.Chain(ctx, heir.Identity)
		if err != nil {
			return false, &lostError{err}
		}
		if chain.Terminal() != nil {
			return false, nil
		}
		if start := chain.Start(); start != nil && start.Start.Leader == "" {
			return false, &lostError{bus.ErrFenced}
		}
		if chain.Visible() && !v.had[chain.Leader()] {
			return false, nil
		}
		work, of, said, attempt, single := r.work, r.body, r.chain, r.attempt, r.single()
		r.work, r.body = heir, body // and what follows, and nothing else while the calls go on
		r.chain.set(chain)
		r.open()
		r.attempt++
		if err = r.write(ctx, r.claimFrame(ctx, schemas.ModeInherit)); err == nil {
			v.voice, v.single = voiceOf(heir), single
			return true, v.repeat(ctx, said.whole())
		}
		r.work, r.body, r.chain, r.attempt = work, of, said, attempt
		if !errors.Is(err, bus.ErrFenced) {
			return false, &lostError{err}
		}
	}
	return false, nil
}

// note keeps in mind whose answer the request has that leaves: its own, and that of whom it followed before.
func (v *relay) note() {
	v.had[v.r.work.Request.Request] = true
	leader := ""
	for _, f := range v.r.chain.whole().Frames {
		if f.Start != nil {
			leader = f.Start.Leader
		}
		if f.Count > 0 && leader != "" {
			v.had[leader] = true
		}
	}
}

// repeat tells the heir what it lacks of what was said before.
func (v *relay) repeat(ctx context.Context, said *bus.Chain) error {
	r := v.r
	gathered := &frameData{}
	for index, event := range said.Events() {
		if index < r.chain.Next()+uint64(gathered.count) {
			continue
		}
		event = v.voice.say(event)
		if !gathered.fits(event) {
			if err := r.put(ctx, gathered); err != nil {
				return err
			}
		}
		gathered.add(event)
	}
	return r.put(ctx, gathered)
}

// put writes gathered events.
func (r *run) put(ctx context.Context, gathered *frameData) error {
	if gathered.count == 0 {
		return nil
	}
	frame := &schemas.Frame{Kind: schemas.KindDelta, Count: gathered.count, Data: gathered.data}
	if err := r.write(ctx, frame); err != nil {
		return &lostError{err}
	}
	gathered.reset()
	return nil
}

// single reports whether the answer is that of one attempt.
func (r *run) single() bool {
	return r.attempt == 1 && r.chain.whole().Attempts() == 1 || r.relay != nil && r.relay.single
}
