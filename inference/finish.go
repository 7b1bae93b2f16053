package inference

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// maxSummary is the longest summary in a header. The server takes 64 KiB of headers a message.
const maxSummary = 32 << 10

// finish commits the end of the answer, or the error that ended it, and keeps the result.
func (r *run) finish(ctx context.Context, said *answer, err error) bus.Outcome {
	var failed *schemas.Error
	if err != nil {
		failed = schemas.AsError(err)
	}
	if failed != nil && failed.Code == schemas.CodeShutdown && r.continuable() {
		return r.handBack(ctx)
	}
	summary := r.summary(said, failed)
	frame := &schemas.Frame{Kind: schemas.KindEnd, Trace: bus.TraceParent(ctx)}
	switch {
	case failed != nil:
		frame.Kind, frame.Data, frame.Summary = schemas.KindError, failed.Encode(), headerSummary(summary)
		r.logFailed(failed)
	case said.response != nil:
		frame.Count, frame.Data, frame.Summary = 1, said.response, headerSummary(summary)
	default:
		frame.Data = summary.Encode()
	}
	return r.commit(ctx, frame, summary, said)
}

// logFailed tells the operator why a request failed: not the message, which may quote what the server said, and servers quote
// the request.
func (r *run) logFailed(failed *schemas.Error) {
	attrs := []any{"code", failed.Code, "attempt", r.attempt}
	if cause := errors.Unwrap(failed); cause != nil {
		attrs = append(attrs, "error", cause)
	}
	r.log().Warn("the request failed", attrs...)
}

// headerSummary is a summary as a header. What an upstream makes too large, the server would never store: then only what
// has a bound is kept.
func headerSummary(s *schemas.Summary) []byte {
	data := s.Encode()
	if len(data) <= maxSummary {
		return data
	}
	least := &schemas.Summary{
		Status: s.Status, Cost: s.Cost, Attempts: s.Attempts, FirstTokenMS: s.FirstTokenMS, DurationMS: s.DurationMS,
		CancelledBy: s.CancelledBy, Malformed: s.Malformed,
	}
	if s.Usage != nil {
		least.Usage = &schemas.Usage{PromptTokens: s.Usage.PromptTokens, CompletionTokens: s.Usage.CompletionTokens, TotalTokens: s.Usage.TotalTokens}
	}
	return least.Encode()
}

// handBack lets another worker go on, and says so in the chain, so that this attempt is not taken for a lost worker.
func (r *run) handBack(ctx context.Context) bus.Outcome {
	if err := r.mark(ctx); err != nil {
		return r.lost(ctx, err)
	}
	r.log().Info("the request is handed back", "attempt", r.attempt)
	return bus.Nak
}

// mark ends an attempt without a loss: it was handed back, or its model server failed (docs/adr/0005, 0019).
func (r *run) mark(ctx context.Context) error {
	return r.write(ctx, &schemas.Frame{Kind: schemas.KindDelta})
}

// commit writes the terminal frame, after which nobody writes, and keeps the result. said is nil unless the answer is whole.
func (r *run) commit(ctx context.Context, frame *schemas.Frame, summary *schemas.Summary, said *answer) bus.Outcome {
	if err := r.write(ctx, frame); err != nil {
		return r.lost(ctx, err)
	}
	r.ended = summary
	if frame.Kind == schemas.KindEnd && said != nil {
		r.keepAnswer(ctx, said)
	}
	return r.keep(ctx)
}

// keep stores the result of a finished chain, then the DLQ record of a dead request, and only then acknowledges.
func (r *run) keep(ctx context.Context) bus.Outcome {
	ctx = context.WithoutCancel(ctx) // each write has its own bound
	if err := r.relay.pay(ctx); err != nil {
		r.log().Error("the result of a request that had this run before was not stored; it is tried again after the lease", "error", err)
		return bus.Silent
	}
	result := record.Build(r.work, r.body, r.chain.whole(), r.ended)
	if err := r.w.bus.PutResult(ctx, result); err != nil {
		r.log().Error("the result was not stored; it is tried again after the lease", "error", err)
		return bus.Silent
	}
	if r.dead != "" {
		if err := r.w.bus.DeadLetter(ctx, r.work.Identity, r.m.token, r.dead, r.d.Header, r.d.Data); err != nil {
			r.log().Error("the request was not moved to the DLQ; it is tried again after the lease", "error", err)
			return bus.Silent
		}
	}
	r.counted()
	r.w.meters.finished(r.m.name, result)
	return bus.Ack
}

// continuable reports whether another worker can go on without the reader noticing.
func (r *run) continuable() bool { return !r.chain.Visible() || r.goOn().refuse == nil }

func (r *run) summary(said *answer, failed *schemas.Error) *schemas.Summary {
	s := &schemas.Summary{
		Status: schemas.StatusCompleted, Attempts: r.attempt, Tries: r.tries,
		DurationMS: milliseconds(time.Since(r.began)),
	}
	if failed != nil {
		s.Status, s.CancelledBy = schemas.StatusOf(failed), failed.CancelledBy()
	}
	if len(r.tries) > 0 {
		s.FirstTokenMS = r.tries[len(r.tries)-1].FirstTokenMS
	}
	if said != nil {
		s.Malformed = said.leftOut
		if s.Usage = said.usage; failed == nil {
			s.FinishReasons = said.finishes
		} else if s.Usage == nil && (r.chain.Visible() || s.CancelledBy != "") {
			s.Usage = r.cost(said.tokens)
		}
		if r.by != nil {
			if last := &r.tries[len(r.tries)-1]; failed == nil && last.Usage == nil { // the one call gave the answer
				last.Usage, last.Cost = s.Usage, r.by.price().Of(s.Usage)
			}
		}
		s.Usage = r.relay.rest(s.Usage)
		if r.by != nil {
			s.Cost = r.by.price().Of(s.Usage)
		}
		if said.model != r.m.name {
			s.Model = said.model
		}
		if r.by != nil && r.by != r.m {
			s.Model = r.by.name
		}
	}
	return s
}

// cost is what an answer cost that did not come to its end, as far as anybody has called a model for it: what the
// server told on the way, else an estimate.
func (r *run) cost(tokens int64) *schemas.Usage {
	told := r.told()
	if told.usage != nil {
		return told.usage
	}
	if len(r.tries) == 0 && told.spoken == 0 {
		return nil
	}
	u := estimate(r.body, max(told.spoken, tokens))
	if told.asked > 0 {
		u.PromptTokens, u.TotalTokens = told.asked, told.asked+u.CompletionTokens
	}
	return u
}
