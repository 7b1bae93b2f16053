package router

import (
	"context"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// reading brings the events of a leader into its flight, in a goroutine of its own.
type reading struct {
	c      *copier
	fl     *flight
	number int // what it brings counts only while it is the flight's
	leader schemas.Identity
}

// read follows the leader's chain until it ends.
func (r *reading) read(ctx context.Context, from uint64) {
	for frame, err := range r.c.bus.Read(ctx, r.leader, bus.ReadOptions{From: from}) {
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.recall(ctx, err)
			return
		case frame.Kind.Terminal():
			r.land(frame)
			return
		case frame.Count > 0 && !r.add(ctx, frame):
			return
		}
	}
}

// add takes a frame in, and waits while the followers are too far behind. It returns false when the reading is over.
func (r *reading) add(ctx context.Context, frame *schemas.Frame) bool {
	fl, c := r.fl, r.c
	for taken := false; ; taken = true {
		c.mu.Lock()
		if fl.reading != r.number {
			c.mu.Unlock()
			return false
		}
		if !taken {
			r.take(frame)
		}
		fl.trim()
		over := fl.size > flightWindow
		c.mu.Unlock()
		if !over {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-fl.room:
		}
	}
}

// take adds the events that the flight does not have. The copier's mu is held.
func (r *reading) take(frame *schemas.Frame) {
	for index, event := range frame.Events() {
		if index == r.fl.next() {
			t := cache.NewTemplate(r.fl.op, event)
			r.fl.events = append(r.fl.events, t)
			r.fl.size += t.Size()
		}
	}
	r.c.wakeAll(r.fl)
}

func (r *reading) land(frame *schemas.Frame) {
	r.c.finished <- func() { r.c.loop.landed(r.fl, r.number, frame) }
}

// recall takes the rest of the answer from its result, when its frames are no longer there.
func (r *reading) recall(ctx context.Context, why error) {
	r.c.log.Warn("an answer that others follow cannot be read on from the log; its result is looked for", keyRequest, r.leader.Request,
		keyTenant, r.leader.Tenant, keyError, why)
	result, err := r.c.bus.Result(ctx, r.leader)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.land(untold())
		return
	}
	r.retell(ctx, result)
}

// retell takes an answer from its result.
func (r *reading) retell(ctx context.Context, result *schemas.Result) {
	if result.Status == schemas.StatusDeleted {
		r.land(untold())
		return
	}
	for frame, err := range eventlog.Frames(result.Events, result.Accepted) {
		if err != nil {
			r.land(untold())
			return
		}
		if !r.add(ctx, frame) {
			return
		}
	}
	r.land(endOf(result))
}

// endOf is the terminal frame that a result was made from, as far as it tells.
func endOf(r *schemas.Result) *schemas.Frame {
	summary := (&schemas.Summary{
		Status: r.Status, FinishReasons: r.FinishReasons, Usage: r.Usage, Model: r.AnsweredBy, CancelledBy: r.CancelledBy,
	}).Encode()
	switch {
	case r.Status != schemas.StatusCompleted:
		return &schemas.Frame{Kind: schemas.KindError, Data: r.Error, Summary: summary}
	case r.Events != nil:
		return &schemas.Frame{Kind: schemas.KindEnd, Data: summary}
	}
	return &schemas.Frame{Kind: schemas.KindEnd, Count: 1, Data: r.Response, Summary: summary}
}

// untold is the end of an answer of which no more is known.
func untold() *schemas.Frame {
	err := schemas.Errorf(schemas.CodeStreamExpired, "the answer that this request was given a copy of is no longer in the log; send the request again")
	return &schemas.Frame{Kind: schemas.KindError, Data: err.Encode(), Summary: (&schemas.Summary{Status: schemas.StatusOf(err)}).Encode()}
}
