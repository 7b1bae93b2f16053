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
	frame := &schemas.Frame{Kind: schemas.KindEnd, Data: summary.Encode(), Trace: bus.TraceParent(ctx)}
	switch {
	case failed != nil:
		frame.Kind, frame.Data, frame.Summary = schemas.KindError, failed.Encode(), headerSummary(summary)
		// Not the message: it may quote what the server said, and servers quote the request.
		r.log().Warn("the request failed", "code", failed.Code, "attempt", r.attempt, "error", errors.Unwrap(failed))
	case said.response != nil:
		frame.Count, frame.Data, frame.Summary = 1, said.response, headerSummary(summary)
	}
	return r.commit(ctx, frame, summary, said)
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
	if err := r.write(ctx, &schemas.Frame{Kind: schemas.KindDelta}); err != nil {
		return r.lost(ctx, err)
	}
	r.log().Info("the request is handed back", "attempt", r.attempt)
	return bus.Nak
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
	result := record.Build(r.work, r.body, r.chain, r.ended)
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
func (r *run) continuable() bool { return !r.chain.Visible() || len(r.repeaters()) > 0 }

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
		s.FinishReasons, s.Usage = said.finishes, said.usage
		if r.by != nil { // the last call gave the answer
			s.Cost = r.by.price.Of(said.usage)
			last := &r.tries[len(r.tries)-1]
			last.Usage, last.Cost = s.Usage, s.Cost
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
