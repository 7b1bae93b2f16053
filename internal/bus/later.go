package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// Hold keeps a work item until a time, by the server's clock and a second late at most, and makes it due then ([Bus.Due]).
// A request is held once: holding it again replaces what is held of it, unless that is for a dispatch for which it was held a
// moment ago. It blocks until JetStream has acknowledged it.
func (b *Bus) Hold(ctx context.Context, w *schemas.Work, until time.Time) error {
	item := *w
	var err error
	if item.Request, err = b.offloadRequest(ctx, w.Request); err != nil {
		return fmt.Errorf("hold %s: %w", w.Identity, err)
	}
	msg := &nats.Msg{Subject: schemas.RetryHoldSubject(w.Identity, w.ModelToken), Header: item.EncodeHeld(until), Data: item.Body}
	msg.Header[schemas.HeaderMsgID] = []string{w.MsgID()} // a second try must not replace what is held since the first
	inject(ctx, msg.Header)
	_, err = b.publishStored(ctx, msg, transient)
	return wrap("hold "+w.Identity.String(), err)
}

// Due takes the work items of the tenants of a partition whose time has come.
func (b *Bus) Due(partition int) *Puller {
	return b.puller(schemas.StreamRetry, schemas.RetryConsumer(partition), "")
}

// Held is what is held of a request, or [ErrNotFound].
func (b *Bus) Held(ctx context.Context, id schemas.Identity) (*schemas.Work, error) {
	m, err := b.getMessage(ctx, schemas.StreamRetry, map[string]any{"last_by_subj": schemas.RetryHoldSubject(id, "*")})
	if err != nil {
		return nil, err
	}
	token, _ := schemas.RetryModel(m.Subject)
	return schemas.DecodeWork(token, m.Header, m.Data)
}

// Release removes what is held of a request, without waiting: what stays is due later, and found to be done.
func (b *Bus) Release(id schemas.Identity) {
	b.retryAPI("PURGE", map[string]any{"filter": schemas.RetryHoldSubject(id, "*")})
}

// AnyHeld reports whether an item is held, or due and not forgotten.
func (b *Bus) AnyHeld(ctx context.Context) (bool, error) {
	stream, err := b.js.Stream(ctx, schemas.StreamRetry)
	if err != nil {
		return false, fmt.Errorf("look up stream %s: %w", schemas.StreamRetry, err)
	}
	return stream.CachedInfo().State.Msgs > 0, nil
}

// Forget removes a due item that is acknowledged, without waiting: one that stays is not delivered again, and ages.
func (b *Bus) Forget(sequence uint64) {
	b.retryAPI("MSG.DELETE", map[string]any{"seq": sequence, "no_erase": true})
}

func (b *Bus) retryAPI(verb string, question map[string]any) {
	body, err := json.Marshal(question)
	if err == nil {
		err = b.control.Publish("$JS.API.STREAM."+verb+"."+schemas.StreamRetry, body)
	}
	if err != nil {
		b.log.Warn("a retry that is done was not removed; it ages", "error", err)
	}
}

// OnHeld calls fn for every event that a request is held until stop is called. Calls do not overlap; fn must not block.
func (b *Bus) OnHeld(fn func(*schemas.RetryEvent)) (stop func(), err error) {
	return b.listen(schemas.EventSubject(schemas.EventRetry), func(msg *nats.Msg) {
		e, err := schemas.DecodeRetryEvent(msg.Data)
		if err != nil || schemas.ValidateTenant(e.Tenant) != nil {
			b.log.Warn("an event of a retry was dropped", "error", err)
			return
		}
		fn(e)
	})
}

func (b *Bus) retryConsumer(partition int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: schemas.RetryConsumer(partition), FilterSubject: schemas.RetryFilter(partition),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.Lease, MaxDeliver: -1, MaxAckPending: RequestsOut,
	}
}
