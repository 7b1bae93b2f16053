package sink

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// maxReads is after how many deliveries a result whose body lies in LLM_OBJECTS and cannot be read counts as poison.
const maxReads = 5

// record is a delivery that was read.
type record struct {
	delivery *bus.Delivery
	result   *schemas.Result
	span     trace.Span
}

// handle reads the deliveries and keeps them in commits of a bounded size. Every delivery is settled when it returns,
// and its lease is renewed until then.
func (s *Sink) handle(ctx, work context.Context, deliveries []*bus.Delivery) {
	if len(deliveries) == 0 {
		return
	}
	defer s.hold(deliveries)()
	var batch []record
	size := 0
	for _, d := range deliveries {
		r, ok := s.read(work, d)
		if !ok {
			continue
		}
		batch = append(batch, r)
		if size += recordBytes(r.result); size >= s.cfg.BatchBytes {
			s.commit(ctx, work, batch)
			batch, size = nil, 0
		}
	}
	s.commit(ctx, work, batch)
}

// hold renews the leases of deliveries until release is called.
func (s *Sink) hold(deliveries []*bus.Delivery) (release func()) {
	done := make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() {
		ticker := time.NewTicker(s.bus.Lease() / 3)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				for _, d := range deliveries {
					d.Extend() // of a settled delivery the server ignores it
				}
			}
		}
	})
	return func() { close(done); holder.Wait() }
}

// read decodes a delivery. It settles those that cannot be read.
func (s *Sink) read(ctx context.Context, d *bus.Delivery) (record, bool) {
	id, valid := schemas.ParseIdentity(d.Subject)
	ctx, span := s.bus.Process(ctx, d, "llm.results.{tenant}.{request}", id)
	result, err := s.decode(ctx, d)
	if err == nil && (!valid || result.Identity() != id) {
		err = fmt.Errorf("the record of %s was published on %s", result.Identity(), d.Subject)
	}
	if err == nil {
		return record{delivery: d, result: kept(result), span: span}, true
	}
	if mayBeRead(d, err) {
		s.log.Warn("a result cannot be read and is tried again", telemetry.KeyTenant, id.Tenant, telemetry.KeyRequest, id.Request,
			telemetry.KeyDelivered, d.Delivered, telemetry.KeyError, err)
		d.Settle(bus.Silent)
		end(span, err)
		return record{}, false
	}
	s.bury(ctx, record{delivery: d, span: span}, id, "", err)
	return record{}, false
}

// decode is the boundary for what a record from outside could still provoke.
func (s *Sink) decode(ctx context.Context, d *bus.Delivery) (result *schemas.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a result made the decoder panic", telemetry.KeySequence, d.Sequence, telemetry.KeyError, fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("decode result: panic: %v", p)
		}
	}()
	return s.bus.DecodeResult(ctx, d)
}

// mayBeRead reports whether the fault can be that of the object store, and not of the record.
func mayBeRead(d *bus.Delivery, err error) bool {
	return len(d.Header[schemas.HeaderObject]) > 0 && !errors.Is(err, bus.ErrNotFound) && d.Delivered < maxReads
}

// commit keeps the batch and then acknowledges it. While the store fails it tries again until ctx is done, then once
// more, and gives the batch back to the bus.
func (s *Sink) commit(ctx, work context.Context, batch []record) {
	retry := s.retry()
	for len(batch) > 0 {
		last := ctx.Err() != nil
		err := s.put(work, batch)
		if bad, ok := errors.AsType[*RecordError](err); ok && bad.Index >= 0 && bad.Index < len(batch) {
			r := batch[bad.Index]
			s.bury(work, r, r.result.Identity(), modelToken(r.result), bad.Err)
			batch = slices.Delete(batch, bad.Index, bad.Index+1)
			continue
		}
		s.health.set(storing, err)
		if err == nil {
			s.settle(batch, bus.Ack, nil)
			return
		}
		if last {
			s.settle(batch, bus.Nak, err)
			return
		}
		wait(ctx, retry.NextBackOff())
	}
}

func (s *Sink) put(ctx context.Context, batch []record) error {
	results := make([]*schemas.Result, len(batch))
	for i, r := range batch {
		results[i] = r.result
	}
	began := time.Now()
	err := s.store.Put(ctx, results)
	if err == nil {
		s.meters.committed(batch, time.Since(began))
	}
	return err
}

func (s *Sink) settle(batch []record, outcome bus.Outcome, err error) {
	for _, r := range batch {
		r.delivery.Settle(outcome)
		end(r.span, err)
	}
}

// bury writes what can never be kept to the DLQ. If even that fails, the delivery comes back after its lease.
func (s *Sink) bury(ctx context.Context, r record, id schemas.Identity, model string, reason error) {
	d := r.delivery
	log := s.log.With(telemetry.KeyTenant, id.Tenant, telemetry.KeyRequest, id.Request, telemetry.KeySequence, d.Sequence, telemetry.KeyReason, reason)
	defer end(r.span, reason)
	if err := s.bus.DeadLetter(ctx, id, model, reason.Error(), d.Header, d.Data); err != nil {
		log.Error("a result that cannot be kept could not be written to the DLQ and is tried again", telemetry.KeyError, err)
		d.Settle(bus.Silent)
		return
	}
	log.Error("a result cannot be kept and is in the DLQ")
	s.meters.buried.Inc()
	d.Settle(bus.Term)
}

func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// recordBytes is about what a record takes in memory.
func recordBytes(r *schemas.Result) int {
	n := len(r.Request) + len(r.RequestRaw) + len(r.Response)
	if r.Events != nil {
		n += len(r.Events.Data)
	}
	return n
}

// modelToken is the encoded model, or empty when the name has no encoding.
func modelToken(r *schemas.Result) string {
	token, err := schemas.EncodeModel(r.Model)
	if err != nil {
		return ""
	}
	return token
}
