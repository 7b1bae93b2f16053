package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

const (
	serviceName = "weir"
	// serviceVersion is that of the service's contract (docs/adr/0007).
	serviceVersion     = "1.0.0"
	serviceDescription = "LLM inference: a request in, its answer back to the inbox, ended by an empty message"
)

// service is the door for NATS callers: tenants, and trusted services that want the answer in their inbox.
type service struct {
	s       *Ingest
	work    context.Context // ends with the drain limit
	bus     *bus.Service
	owned   sync.WaitGroup
	cancels chan struct{} // one per cancel under way, which must go on when all places for answers are taken
	stats   map[string]*endpointStats
}

// endpointStats are what `nats micro stats` shows of an endpoint. The framework's own times end when a request is taken.
type endpointStats struct {
	open, answered, failed atomic.Int64
}

// sameNames are the headers that travel with a request, as they are on NATS.
var sameNames = travelling(func(name string) string { return name })

// serve offers the service. Its answers end with work.
func (s *Ingest) serve(work context.Context) (*service, error) {
	v := &service{s: s, work: work, cancels: make(chan struct{}, cancelsAtOnce), stats: make(map[string]*endpointStats)}
	endpoints := []bus.Endpoint{
		{Name: "chat", Subject: schemas.ChatAll, Handle: v.endpoint("chat", v.takePlace, v.chat)},
		{Name: "resume", Subject: schemas.ResumeAll, Handle: v.endpoint("resume", v.takePlace, v.resume)},
		{Name: "read", Subject: schemas.ReadAll, Handle: v.endpoint("read", v.takePlace, v.read)},
		// In the account of the pipeline the subject is a hint that stages listen to; a tenant's cancel is made certain here.
		{Name: "cancel", Subject: schemas.CancelAll, Handle: v.endpoint("cancel", v.takeCancel, v.cancel), Edge: true},
	}
	var err error
	v.bus, err = s.cfg.Bus.Serve(bus.ServiceConfig{
		Name: serviceName, Version: serviceVersion, Description: serviceDescription, Endpoints: endpoints, Stats: v.stat,
	})
	if err != nil {
		return nil, fmt.Errorf("offer the NATS service: %w", err)
	}
	return v, nil
}

func (v *service) stat(endpoint string) any {
	stats := v.stats[endpoint]
	if stats == nil {
		return nil
	}
	return map[string]int64{"open": stats.open.Load(), "answered": stats.answered.Load(), "failed": stats.failed.Load()}
}

// takePlace claims a place for an answer; they are the same for both doors. The key of a connection is known to the server
// alone, and so is its address: a tenant counts as one key.
func (v *service) takePlace(i *inbox) (release func(), err error) {
	tenant := "tenant " + i.id.Tenant // no key has such an id
	if err := v.s.places.take(tenant, netip.Addr{}); err != nil {
		return nil, err
	}
	return func() { v.s.places.give(tenant, netip.Addr{}) }, nil
}

func (v *service) takeCancel(*inbox) (release func(), err error) {
	select {
	case v.cancels <- struct{}{}:
		return func() { <-v.cancels }, nil
	default:
		return nil, schemas.Errorf(schemas.CodeOverloaded, "%d cancels are under way already: try again in a second", cap(v.cancels)).WithRetryAfter(overloadedRetry)
	}
}

// endpoint makes the handler that takes a request, which must not block, and answers it in a goroutine of its own.
func (v *service) endpoint(name string, take func(*inbox) (func(), error), handle func(*inbox) error) func(*bus.Ask) {
	stats := &endpointStats{}
	v.stats[name] = stats
	return func(ask *bus.Ask) {
		i := v.newInbox(name, ask)
		if !i.trusted() {
			i.log(slog.LevelDebug, "a reply subject is refused", slog.String(telemetry.KeySubject, ask.Subject))
			if ask.Reply = ""; name != "cancel" {
				i.end(stats)
				return
			}
		}
		var err error
		if i.give, err = take(i); err != nil {
			i.refuse(err)
			i.end(stats)
			return
		}
		stats.open.Add(1)
		v.owned.Go(func() {
			defer stats.open.Add(-1)
			defer i.giveBack()
			defer i.end(stats)
			if err := handle(i); err != nil {
				i.fail(err)
			}
		})
	}
}

// chat answers llm.chat.<tenant>.<model>. The tenant is that of the subject, whatever headers and body say.
func (v *service) chat(i *inbox) error {
	_, token, _ := schemas.ParseChatSubject(i.ask.Subject)
	if err := schemas.ValidateTenant(i.id.Tenant); err != nil {
		return err
	}
	model, err := schemas.DecodeModel(token)
	if err != nil {
		return err
	}
	if int64(len(i.ask.Data)) > v.s.cfg.MaxBodyBytes {
		return v.s.tooLarge()
	}
	if err := i.hold(max(int64(len(i.ask.Data))-freeBody, 0)); err != nil {
		return err
	}
	body, err := openai.FillModel(i.ask.Data, model)
	if err != nil {
		return err
	}
	op := schemas.Op(first(i.ask.Header, schemas.HeaderOp))
	if op == "" {
		op = schemas.OpChat
	}
	return v.s.place(&i.exchange, i, asked{
		op: op, body: body, header: passed(i.ask.Header, sameNames),
		ids: i.ask.Header[schemas.HeaderRequestID], keys: i.ask.Header[headerIdempotencyKey],
		prefer: i.ask.Header[schemas.HeaderPrefer],
	})
}

// resume answers llm.resume.<tenant>.<request>. The payload is the index or the id of the last event seen, or empty, or
// asks for the result.
func (v *service) resume(i *inbox) error {
	cursor := string(bytes.TrimSpace(i.ask.Data))
	if cursor == schemas.AskResult {
		return v.result(i)
	}
	there, err := v.existing(i)
	if err != nil {
		return err
	}
	from := uint64(0)
	if cursor != "" {
		if from, err = schemas.StartingAfter(i.id.Request, cursor); err != nil {
			return err
		}
	}
	return v.s.readOn(&i.exchange, there, from, func(all frames) (finished bool, err error) {
		return i.answer(true, all, nil)
	})
}

// read answers llm.read.<tenant>.<request> as resume does, for a caller whose leaving ends nothing. It has a subject of its
// own because that is what the server holds a key to; who the caller is, the service cannot see.
func (v *service) read(i *inbox) error {
	i.onlooker = true
	return v.resume(i)
}

// cancel answers llm.cancel.<tenant>.<request> of a tenant: once it has answered, the request has ended.
func (v *service) cancel(i *inbox) error {
	there, err := v.existing(i)
	if err != nil {
		return err
	}
	if there, err = v.s.stop(&i.exchange, there, schemas.CancelledByCaller); err != nil {
		return err
	}
	body, err := json.Marshal(schemas.Outcome{ID: i.id.Request, Status: there.status(), Deleted: there.status() == schemas.StatusDeleted})
	if err != nil {
		return err
	}
	return i.respond(body)
}

// existing finds the request that the subject names, by the reads that HTTP makes.
func (v *service) existing(i *inbox) (run, error) {
	if err := i.target(); err != nil {
		return run{}, err
	}
	return v.s.existing(&i.exchange)
}

// target takes the request from the subject. One that cannot exist is as unknown as any other.
func (i *inbox) target() error {
	id, ok := schemas.ParseIdentity(i.ask.Subject)
	if !ok {
		return unknown()
	}
	i.id = id
	return nil
}

// drain takes no more requests, and returns when the answers under way are finished or ctx has ended.
func (v *service) drain(ctx context.Context) error {
	if err := v.bus.Drain(ctx); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { v.owned.Wait(); close(done) }() // close waits for it
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends the service. The context of the answers must have ended, or they.
func (v *service) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cutLimit)
	defer cancel()
	err := v.bus.Drain(ctx)
	v.owned.Wait()
	return errors.Join(err, v.bus.Close())
}
