package bus

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// Hints are messages of core NATS: at most once, seen by whoever listens now. Correctness never depends on one.

// Cancel hints that a request should stop, and for whom. Use [Bus.CancelRequest] where it must.
func (b *Bus) Cancel(id schemas.Identity, by schemas.CancelledBy) error {
	return b.hint(id.Cancel(), (&schemas.Cancel{By: by}).Encode())
}

// OnCancel calls fn for every cancel hint until stop is called. Calls do not overlap; fn must not block.
func (b *Bus) OnCancel(fn func(schemas.Identity, schemas.CancelledBy)) (stop func(), err error) {
	return b.listen(schemas.CancelAll, func(msg *nats.Msg) {
		if id, ok := schemas.ParseIdentity(msg.Subject); ok {
			fn(id, schemas.DecodeCancel(msg.Data).By)
		}
	})
}

// Attach hints that this process reads a request, so that another does not cancel it for want of a reader.
func (b *Bus) Attach(id schemas.Identity) error { return b.hint(id.Attach(), nil) }

// OnAttach calls fn for every attach hint until stop is called. Calls do not overlap; fn must not block.
func (b *Bus) OnAttach(fn func(schemas.Identity)) (stop func(), err error) {
	return b.listen(schemas.AttachAll, onIdentity(fn))
}

// Beat publishes a worker's heartbeat.
func (b *Bus) Beat(h *schemas.Heartbeat) error {
	return b.hint(schemas.WorkerSubject(h.Worker), h.Encode())
}

// OnBeat calls fn for every worker's heartbeat until stop is called. Calls do not overlap; fn must not block.
func (b *Bus) OnBeat(fn func(*schemas.Heartbeat)) (stop func(), err error) {
	return b.listen(schemas.WorkersAll, func(msg *nats.Msg) {
		beat, err := schemas.DecodeHeartbeat(msg.Data)
		if err != nil {
			b.log.Warn("a heartbeat was dropped", "subject", msg.Subject, "error", err)
			return
		}
		fn(beat)
	})
}

// RouterBeat publishes a router's heartbeat.
func (b *Bus) RouterBeat(beat *schemas.RouterBeat) error {
	return b.hint(schemas.RouterSubject(beat.Router), beat.Encode())
}

// OnRouterBeat calls fn for every router's heartbeat, this process's own as well, until stop is called. Calls do not
// overlap; fn must not block.
func (b *Bus) OnRouterBeat(fn func(*schemas.RouterBeat)) (stop func(), err error) {
	return b.listen(schemas.RoutersAll, func(msg *nats.Msg) {
		beat, err := schemas.DecodeRouterBeat(msg.Data)
		if err != nil {
			b.log.Warn("a heartbeat was dropped", "subject", msg.Subject, "error", err)
			return
		}
		fn(beat)
	})
}

func (b *Bus) hint(subject string, data []byte) error {
	return wrap("publish to "+subject, b.control.Publish(subject, data))
}

func (b *Bus) listen(subject string, fn nats.MsgHandler) (func(), error) {
	sub, err := b.control.Subscribe(subject, fn)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	// Whoever asks now must be heard: without the flush a hint could be published before the server knows of the interest.
	if err := b.control.Flush(); err != nil {
		_ = sub.Unsubscribe()
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

func onIdentity(fn func(schemas.Identity)) nats.MsgHandler {
	return func(msg *nats.Msg) {
		if id, ok := schemas.ParseIdentity(msg.Subject); ok {
			fn(id)
		}
	}
}
