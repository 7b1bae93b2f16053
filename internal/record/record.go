// Package record makes the final record of a request from its chain. The record is a function of the request and the
// chain alone, so that whoever finds a finished chain, after whatever was killed, writes the same result.
package record

import (
	"context"
	"encoding/json"
	"slices"
	"time"

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
	addCost(r, chain, body)
	r.Events = eventlog.Pack(r.Accepted, chain.Frames)
	if w.Reserve != nil {
		r.Charge = charge(w, chain, r)
	}
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

// charge is what the request counts for against the limits of its tenant. One that never ran counts for nothing. Where no
// model has told what was used, each event of a stream stands for a token, and a whole answer for what was reserved.
func charge(w *schemas.Work, chain *bus.Chain, r *schemas.Result) *schemas.Charge {
	c := &schemas.Charge{Reserve: *w.Reserve, Sent: w.Sent}
	visible := chain.Next()
	switch {
	case chain.Start() == nil && r.Status != schemas.StatusCompleted:
		return c
	case w.Reserve.Tokens() == 0: // answered without a model
	case r.Usage != nil:
		c.Tokens = max(r.Usage.PromptTokens+r.Usage.CompletionTokens, r.Usage.TotalTokens, 0)
		if r.Usage.Estimated && r.Usage.PromptTokens == 0 { // without the body, of which the router had an idea
			c.Tokens += w.Reserve.Input
		}
	case r.Response != nil:
		c.Tokens = w.Reserve.Tokens()
	case visible > 0:
		c.Tokens = w.Reserve.Input + int64(visible)
	}
	c.Requests = w.Reserve.Requests
	switch {
	case w.Reserve.Tokens() == 0:
	case r.Cost != nil:
		c.Money = max(r.Cost.Amount, 0)
	case c.Tokens > 0 && w.Reserve.Tokens() > 0:
		c.Money = schemas.Money(float64(w.Reserve.Money) / float64(w.Reserve.Tokens()) * float64(c.Tokens))
	}
	return c
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

// bytesPerToken is how many bytes a token of a prompt has, as far as nobody has counted.
const bytesPerToken = 3.6

// addCost estimates what an answer cost that was ended by another than its worker: as the last frame says that knows, or
// as many tokens as there are events.
func addCost(r *schemas.Result, chain *bus.Chain, body []byte) {
	if r.Usage != nil || r.Status == schemas.StatusCompleted || !chain.Visible() {
		return
	}
	for _, f := range slices.Backward(chain.Frames) {
		if u := (&schemas.Usage{}); raw([]byte(f.Usage)) != nil && u.UnmarshalJSON([]byte(f.Usage)) == nil {
			r.Usage = u
			return
		}
	}
	prompt, output := int64(float64(len(body))/bytesPerToken), int64(chain.Next())
	r.Usage = &schemas.Usage{PromptTokens: prompt, CompletionTokens: output, TotalTokens: prompt + output, Estimated: true}
}

// Ensure builds the result of a finished request and stores it, unless there is one already.
func Ensure(ctx context.Context, b *bus.Bus, w *schemas.Work, body []byte, chain *bus.Chain) error {
	return b.PutResult(ctx, Build(w, body, chain, nil))
}

// raw is data as a member of the record, or nothing when it is not JSON: anyone in the account can write a frame.
func raw(data []byte) json.RawMessage {
	if !schemas.ValidMember(data) {
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
