// Package record makes the final record of a request from its chain. The record is a function of the request and the
// chain alone, so that whoever finds a finished chain, after whatever was killed, writes the same result.
package record

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// Build makes the result of a request whose chain has a terminal frame. body is the request body with large ones
// resolved; it may be nil when it is no longer known. summary is that of the terminal frame for a caller that has just
// written it, or nil.
func Build(w *schemas.Work, body []byte, chain *bus.Chain, summary *schemas.Summary) *schemas.Result {
	terminal := chain.Terminal()
	model, err := schemas.DecodeModel(w.ModelToken)
	if err != nil {
		model = w.ModelToken
	}
	r := &schemas.Result{
		V: schemas.Version, Tenant: w.Tenant, RequestID: w.Request.Request, Model: model, Op: w.Op,
		Accepted: w.Accepted.UTC(), Finished: terminal.Time.UTC(), Priority: w.Priority, Dispatch: w.Dispatch, Attempts: chain.Attempts(),
	}
	if body != nil {
		r.SetRequest(body)
	}
	addCache(r, w, chain)
	if start := chain.Start(); start != nil {
		r.Worker = start.Start.Worker
	}
	if first := chain.Frames[0]; w.Op == schemas.OpResponses && first.Kind == schemas.KindAccepted {
		r.Created = first.Time.UTC()
	}
	addTimes(r, chain)
	addEnding(r, terminal, summary)
	r.Events = eventlog.Pack(r.Accepted, chain.Frames)
	return r
}

// addCache takes over what the chain says last that the cache did, and from the item which entry it is about.
func addCache(r *schemas.Result, w *schemas.Work, chain *bus.Chain) {
	for _, f := range chain.Frames {
		switch {
		case f.Cache != nil:
			r.Cache, r.CacheAge = f.Cache.Status, f.Cache.Age
		case f.Start != nil: // a worker runs what was a copy before
			r.Cache, r.CacheAge = "", 0
		}
	}
	if w.Cache != nil {
		r.CacheKey = w.Cache.Key
	}
}

// addTimes derives what the times of the frames tell.
func addTimes(r *schemas.Result, chain *bus.Chain) {
	for _, f := range chain.Frames {
		if f.Start != nil && r.Started.IsZero() {
			r.Started = f.Time.UTC()
		}
		if f.Count > 0 {
			r.FirstTokenMS = milliseconds(f.Time.Sub(r.Accepted))
			break
		}
	}
	r.DurationMS = milliseconds(r.Finished.Sub(r.Accepted))
}

// addEnding takes over what the terminal frame says.
func addEnding(r *schemas.Result, terminal *schemas.Frame, summary *schemas.Summary) {
	encoded := terminal.Summary
	switch {
	case terminal.Kind == schemas.KindError:
		r.Status, r.Error = schemas.StatusFailed, raw(terminal.Data)
		if e, err := schemas.DecodeError(terminal.Data); err == nil {
			r.Status = schemas.StatusOf(e)
		}
	case terminal.Count > 1:
		r.Status = schemas.StatusCompleted
	case terminal.Count > 0:
		r.Status, r.Response = schemas.StatusCompleted, raw(terminal.Data)
	default:
		r.Status, encoded = schemas.StatusCompleted, terminal.Data
	}
	if summary == nil {
		var err error
		if summary, err = schemas.DecodeSummary(encoded); err != nil {
			return // an error frame of another version may have none
		}
	}
	r.FinishReasons, r.Usage, r.Cost, r.Tries = summary.FinishReasons, summary.Usage, summary.Cost, summary.Tries
	r.AnsweredBy = summary.Model
	r.CancelledBy, r.Malformed = summary.CancelledBy, summary.Malformed
}

// Ensure builds the result of a finished request and stores it, unless there is one already.
func Ensure(ctx context.Context, b *bus.Bus, w *schemas.Work, body []byte, chain *bus.Chain) error {
	return b.PutResult(ctx, Build(w, body, chain, nil))
}

// raw is data as a member of the record, or nothing when it is not JSON: anyone in the account can write a frame.
func raw(data []byte) json.RawMessage {
	if !gjson.ValidBytes(data) {
		return nil
	}
	return data
}

func milliseconds(d time.Duration) float64 {
	if d < 0 {
		return 0 // the clocks of two machines
	}
	return float64(d.Microseconds()) / 1000
}
