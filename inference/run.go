package inference

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/responses"
	"github.com/weir-llm/weir/schemas"
)

// maxRounds bounds how often a run may find that the chain went on between its look and its claim.
const maxRounds = 10

// errNotClaimed says that the start frame lost its fence, so that nothing of the attempt is visible.
var errNotClaimed = errors.New("the chain was claimed by another")

// run is one delivery of a work item, from claim to acknowledgement. It is owned by one goroutine.
type run struct {
	w       *Worker
	m       *model
	d       *bus.Delivery
	work    *schemas.Work
	op      schemas.Op      // of the call; what the request is asked as
	request *openai.Request // in that op's dialect; nil until it is read
	body    []byte          // as the caller sent it
	began   time.Time
	span    trace.Span
	tenant  *tenantUsage // nil of a request that could not be read

	chain   trail // as this run knows it
	attempt int
	writer  string
	tries   []schemas.Try
	record  recorder
	left    int              // attempts to go on that this run may still make
	spent   []spent          // ways that got no further since the last event
	cutOff  string           // the backend that stopped in the middle
	cause   *schemas.Error   // why the answer was cut first
	by      *model           // that was called last
	refused *schemas.Error   // why the item could never run, if so
	dead    string           // why the request goes to the DLQ, if so
	alone   bool             // nothing else runs in this worker
	ended   *schemas.Summary // of the terminal frame, if this run wrote it
	purged  purgeMark        // of the cache, before the model was asked
	relay   *relay           // nil unless equal requests are given its answer
}

// run decides what a delivery is and carries it out.
func (w *Worker) run(ctx context.Context, m *model, d *bus.Delivery) bus.Outcome {
	r, outcome := w.accept(ctx, m, d)
	if r == nil {
		return outcome
	}
	defer w.runs.end(d.Sequence)
	ctx = r.begin(ctx)
	defer r.over()
	if err := r.load(ctx); err != nil {
		r.span.RecordError(err)
		return r.loadFailed(ctx, err)
	}
	return r.do(ctx)
}

// accept makes a run of a delivery, unless that cannot be read or runs here already: then the outcome says what becomes of it.
func (w *Worker) accept(ctx context.Context, m *model, d *bus.Delivery) (*run, bus.Outcome) {
	work, err := schemas.DecodeWork(m.token, d.Header, d.Data)
	if err != nil {
		return nil, w.refuse(ctx, m, work, d, err)
	}
	if !w.runs.begin(d.Sequence) {
		d.Extend()
		return nil, bus.Silent
	}
	return w.newRun(m, work, d), bus.Silent
}

func (r *run) begin(ctx context.Context) context.Context {
	ctx, r.span = r.w.bus.Process(ctx, r.d, "llm.work.{model}", r.work.Identity)
	r.tenant = r.w.usage.begin(r.work.Tenant)
	return ctx
}

func (r *run) over() {
	r.w.usage.end(r.tenant)
	r.span.End()
}

func (w *Worker) newRun(m *model, work *schemas.Work, d *bus.Delivery) *run {
	if work.Accepted.IsZero() {
		work.Accepted = d.Time // it is part of the result's identity, and deadlines count from it
	}
	work.Sent = d.Time
	r := &run{w: w, m: m, d: d, work: work, began: time.Now(), left: m.midstream.Max}
	if work.Shared {
		r.relay = newRelay(r)
	}
	return r
}

// log is made when there is something to say, which of most requests there is not.
func (r *run) log() *slog.Logger {
	return r.w.log.With("request_id", r.work.Request.Request, "tenant", r.work.Tenant, "model", r.m.name)
}

// load reads the body, from the object store when it is large, and notes whether another worker could go on with the request.
func (r *run) load(ctx context.Context) (err error) {
	if r.body, err = r.w.bus.Body(ctx, &r.work.Request); err != nil {
		return err
	}
	op := r.work.Op
	request, err := openai.ParseRequest(op, r.body, openai.Policy{})
	if err == nil && op == schemas.OpResponses { // backends speak chat, and the door makes the events of a response from its chunks
		op = schemas.OpChat
		request, err = responses.ToChat(request, openai.Policy{})
	}
	if err != nil {
		return err
	}
	r.op, r.request = op, request
	if r.survives() {
		r.m.repeatable(r.d.Sequence)
		r.w.beats.soon()
	}
	return nil
}

// loadFailed answers a request whose body is gone or was never valid; anything else is tried again after the lease.
func (r *run) loadFailed(ctx context.Context, err error) bus.Outcome {
	refused, known := errors.AsType[*schemas.Error](err)
	if errors.Is(err, bus.ErrNotFound) {
		refused, known = schemas.Errorf(schemas.CodeInternal, "the body of the request is no longer stored; send the request again"), true
	}
	if !known && !time.Now().Before(r.deadline()) {
		refused, known = schemas.Errorf(schemas.CodeDeadline, "the body of the request could not be read until its deadline; send the request again").WithCause(err), true
	}
	if !known {
		return r.puzzled(ctx, "reading the body", err)
	}
	return r.refuse(ctx, refused)
}

// refuse answers with an error unless the chain has gone on without this item.
func (r *run) refuse(ctx context.Context, refused *schemas.Error) bus.Outcome {
	r.refused = refused
	mine, outcome := r.whoseTurn(ctx)
	if !mine {
		return outcome
	}
	r.dead = refused.Error()
	r.open()
	return r.finish(ctx, nil, refused)
}

// do runs the request to its end, or finds out that it is not this item's to run.
func (r *run) do(ctx context.Context) bus.Outcome {
	mine, outcome := true, bus.Silent
	r.markPurges(ctx)
	looked := !r.isFirst(time.Now())
	if looked {
		mine, outcome = r.whoseTurn(ctx)
	}
	for range maxRounds {
		if !mine {
			return outcome
		}
		if !r.alone && r.suspect() {
			release, outcome := r.isolate(ctx)
			if release == nil {
				return outcome
			}
			defer release()
			r.alone = true
		}
		seen := r.chain.Sequence()
		outcome, err := r.try(ctx)
		for errors.Is(err, errCut) {
			outcome, err = r.try(ctx)
		}
		if !errors.Is(err, errNotClaimed) {
			return outcome
		}
		if mine, outcome = r.whoseTurn(ctx); !mine {
			return outcome
		}
		// Two deliveries of one item must not take the chain from each other in turn: who came first keeps it.
		if start := r.chain.whole().Start(); looked && start != nil && start.Start.Work == r.d.Sequence && start.Sequence > seen {
			return bus.Silent
		}
		looked = true
	}
	return bus.Silent
}

// isFirst reports whether nothing can be written of the request yet, so that its chain is claimed without a look. That of an old
// item is not: another may have had its id, and this process may have been paused until the frames of another's answer are gone.
func (r *run) isFirst(now time.Time) bool {
	old := r.d.Time.Sub(r.work.Accepted) > bus.DedupeWindow || now.Sub(r.d.Time) > bus.DedupeWindow
	return r.d.Delivered <= 1 && r.work.Dispatch <= 1 && !old
}

// open begins an attempt behind the chain.
func (r *run) open() {
	r.attempt = r.chain.whole().Attempts()
	if start := r.chain.whole().Start(); start != nil {
		r.attempt = max(r.attempt, start.Attempt) // of one that was held for long, the first attempts have aged
	}
	r.writer = rand.Text()[:12]
}

// try makes one attempt. The error is errNotClaimed, or errCut when another may follow, or nil; with nil the outcome
// stands.
func (r *run) try(ctx context.Context) (bus.Outcome, error) {
	r.open()
	plan := r.plan()
	if plan.refuse != nil {
		return r.finish(ctx, nil, plan.refuse), nil
	}
	r.attempt++
	calling, stop := r.callContext(ctx)
	defer stop()
	t := &tried{plan: plan, seen: r.chain.Next(), said: &answer{}} // the claim writes to the chain
	t.claim = r.claim(ctx, plan.mode, stop)
	defer t.claim.wait()
	events := r.generate(calling, plan)
	if r.relay != nil {
		r.relay.claim, r.relay.said = t.claim, t.said
		events = r.relay.events(calling, events)
	}
	t.failed = r.stream(ctx, events, t.said, t.claim)
	return r.ending(ctx, calling, t)
}

// tried is an attempt that has come to its end.
type tried struct {
	plan   *plan
	seen   uint64 // index of the first event that it could say
	claim  *claim
	said   *answer
	failed error
}

// ending commits how an attempt ended, or says that another may follow, as try does.
func (r *run) ending(ctx, calling context.Context, t *tried) (bus.Outcome, error) {
	failed := t.failed
	if err := t.claim.wait(); errors.Is(err, bus.ErrFenced) {
		return bus.Silent, errNotClaimed
	} else if err != nil {
		return r.lost(ctx, err), nil
	}
	if lost, ok := errors.AsType[*lostError](failed); ok {
		return r.lost(ctx, lost.err), nil
	}
	switch {
	case failed == nil:
	case r.relay != nil && r.relay.over:
		return r.keep(ctx), nil
	case calling.Err() != nil:
		failed = ContextError(calling) // the reason, not how the call noticed
	case r.chain.Visible():
		var again bool
		if failed, again = r.cut(t.plan, r.chain.Next() > t.seen, schemas.AsError(failed)); again {
			if err := r.mark(ctx); err != nil {
				return r.lost(ctx, err), nil
			}
			return bus.Silent, errCut
		}
	case r.waits(schemas.AsError(failed)):
		return r.hold(ctx, schemas.AsError(failed)), nil
	default:
		failed = r.givenUp(schemas.AsError(failed))
	}
	return r.finish(ctx, t.said, failed), nil
}

// callContext lives as long as the model call may: as the request, unless it is handed on.
func (r *run) callContext(ctx context.Context) (context.Context, func()) {
	if r.relay != nil {
		return r.relay.callContext(ctx)
	}
	return r.ownContext(ctx)
}

// ownContext lives until the deadline of the request, the total time of its model, or a cancel hint.
func (r *run) ownContext(ctx context.Context) (context.Context, func()) {
	end, why := r.deadline(), errDeadline
	if total := r.began.Add(r.m.total); total.Before(end) {
		end, why = total, r.m.overdue
	}
	ctx, cancel := endingAt(ctx, end, why)
	hints := r.w.runs.watch(r.work.Identity, cancel)
	return ctx, func() { r.w.runs.unwatch(hints); cancel(nil) }
}

// errDeadline is shared and never changed.
var errDeadline = schemas.Errorf(schemas.CodeDeadline, "the request's deadline passed; allow more time with %s", schemas.HeaderDeadline)

// generate calls backends until one says something, noting every call.
func (r *run) generate(ctx context.Context, p *plan) said {
	r.record.begin(p.tell, p.before)
	if p.closing != nil {
		return func(yield func(Event, error) bool) {
			for _, event := range p.closing {
				if !yield(event, nil) {
					return
				}
			}
		}
	}
	caller := r
	if r.relay != nil { // whoever inherits it, the calls stay as they are
		caller = &run{w: r.w, m: r.m, op: r.op, request: r.request, work: r.work, body: r.body, began: r.began, attempt: r.attempt, relay: r.relay}
	}
	calls := &recovery{
		models: r.models(p), backends: p.backends, ask: r.ask(), stream: r.request.Stream, deadline: r.mustEnd(), attempt: r.attempt,
		call: func(ctx context.Context, t *try) said { return caller.call(ctx, p, t) },
		record: func(m *model, t schemas.Try) {
			r.by, r.tries = m, append(r.tries, t)
			if t.Mode != "" {
				r.w.meters.extra.WithLabelValues(r.m.name, string(t.Mode)).Inc()
			}
		},
	}
	return calls.events(ctx)
}

// models are those that may run the request: the one that was asked for, and its fallbacks if they could as well. Vectors
// of another model would mean nothing, a count of its tokens is another, and what is visible is of the model asked for.
func (r *run) models(p *plan) []*model {
	if len(r.m.fallback) == 0 || p.way == byTokens || p.way == byRepeat || r.op == schemas.OpEmbedding || r.op == schemas.OpCountTokens {
		return []*model{r.m}
	}
	return append([]*model{r.m}, r.m.fallback...)
}

// call makes a call of a backend and yields what callers see of it.
func (r *run) call(ctx context.Context, p *plan, t *try) said {
	request := r.request
	if r.relay != nil {
		r.relay.asked.Store(t.place.model)
	}
	if t.place.model != r.m {
		other := *request
		other.Model, other.Body = t.place.model.name, openai.WithModel(request.Body, t.place.model.name)
		request = &other
	}
	t.stream = request.Stream
	t.body = request.Body
	able := t.place.backend.Capabilities()
	dialect := dialectOf(r.op, able)
	follow, err := r.follow(p, dialect, request)
	if err != nil {
		return failing(err)
	}
	return follow(dialect.call(func(g *GenerateRequest) said { return t.heard(generate(ctx, t.place.backend, g)) }, &GenerateRequest{
		Identity: r.work.Identity, Op: r.op, Body: request.Body, Stream: request.Stream, Choices: request.N,
		Attempt: r.attempt, Try: t.number, Deadline: r.mustEnd(), Header: r.work.Header,
		Resume: p.resume, Tell: p.tell,
	}))
}

// deadline is when the request must have ended.
func (r *run) deadline() time.Time { return deadlineOf(r.work) }

func deadlineOf(w *schemas.Work) time.Time {
	if w.Deadline.IsZero() {
		return w.Accepted.Add(schemas.DefaultDeadline)
	}
	return w.Deadline
}

// mustEnd is when its calls must have ended. Those of a run that others share may outlive the request.
func (r *run) mustEnd() time.Time {
	if r.relay != nil {
		return r.began.Add(r.m.total)
	}
	return r.deadline()
}

// write appends a frame of this attempt. It does not stop when ctx ends, since a write whose outcome is unknown could
// only be left to the lease.
func (r *run) write(ctx context.Context, f *schemas.Frame) error {
	f.Attempt, f.Writer, f.Index = r.attempt, r.writer, r.chain.Next()
	sequence, err := r.w.bus.Append(context.WithoutCancel(ctx), r.work.Identity, r.chain.Sequence(), f)
	if err != nil {
		return err
	}
	f.Sequence, f.Time = sequence, time.Now()
	r.chain.add(f)
	r.count(f)
	r.w.meters.frames.Inc()
	r.w.meters.events.Add(float64(f.Count))
	return nil
}

// recovered reports a panic in a run; the item comes back after the lease, and a third time is its last.
func (w *Worker) recovered(p any, d *bus.Delivery) {
	w.log.Error("a run panicked; its item comes back after the lease", "sequence", d.Sequence, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}
