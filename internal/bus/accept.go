package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/schemas"
)

// Accepted is the receipt of a stored request.
type Accepted struct {
	Sequence  uint64          // in LLM_REQUESTS
	Duplicate bool            // its id had been accepted before, perhaps by a try of this call whose answer was lost
	Waits     bool            // it is the request that waits, and may have no frame; else it was taken up, and a frame is near
	Object    *schemas.Object // where the body is, when it is too large for a message
}

// Accept stores a request. It blocks until JetStream has acknowledged it, which is the moment of acceptance; on any error
// the request may or may not have been accepted, and the same call may be repeated. Another request under an id that is in
// use is not stored: while the earlier one waits the error is [schemas.ReusedID], and later its frames tell that it is another.
// The error is a [schemas.Error].
func (b *Bus) Accept(ctx context.Context, r *schemas.Request) (Accepted, error) {
	// Without an id, the second request of a tenant would look like a copy of its first.
	if err := validateCaller(r.Identity); err != nil {
		return Accepted{}, err
	}
	if err := b.checkRoom(ctx); err != nil {
		return Accepted{}, err
	}
	stored, err := b.offloadRequest(ctx, *r)
	if err != nil {
		return Accepted{}, unavailable(err)
	}
	ctx, span := b.startSend(ctx, "llm.requests.{tenant}.{model}", r.Identity)
	defer span.End()
	msg := &nats.Msg{Subject: schemas.RequestSubject(r.Tenant, r.ModelToken), Header: stored.Encode(), Data: stored.Body}
	msg.Header[schemas.HeaderMsgID] = []string{r.String()}
	inject(ctx, msg.Header)
	acked, err := b.publishStored(ctx, msg, transient)
	if err != nil {
		span.RecordError(err)
		return Accepted{}, acceptError(err)
	}
	accepted := Accepted{Sequence: acked.Sequence, Duplicate: acked.Duplicate, Waits: true, Object: stored.Object}
	if acked.Duplicate {
		accepted, err = b.repeated(ctx, accepted, &stored)
		span.RecordError(err)
	}
	return accepted, err
}

func validateCaller(id schemas.Identity) error {
	if err := schemas.ValidateTenant(id.Tenant); err != nil {
		return err
	}
	return schemas.ValidateCallerID(id.Request)
}

// Dispatch makes a request available to the workers of its model and returns its LLM_WORK sequence. The same dispatch
// twice is stored once. Another request under an id that is in use is not stored at all, because JetStream compares ids
// alone: the error is then [schemas.ReusedID].
func (b *Bus) Dispatch(ctx context.Context, w *schemas.Work) (uint64, error) {
	ctx, span := b.startSend(ctx, "llm.work.{model}", w.Identity)
	defer span.End()
	// A body that came by the direct door may fill a whole message, and a work item has more headers than a request.
	item := *w
	var err error
	if item.Request, err = b.offloadRequest(ctx, w.Request); err != nil {
		span.RecordError(err)
		return 0, fmt.Errorf("dispatch %s: %w", w.Identity, err)
	}
	msg := &nats.Msg{Subject: schemas.WorkSubject(w.ModelToken), Header: item.Encode(), Data: item.Body}
	msg.Header[schemas.HeaderMsgID] = []string{w.MsgID()}
	inject(ctx, msg.Header)
	acked, err := b.publishStored(ctx, msg, transient)
	if err != nil {
		span.RecordError(err)
		return 0, fmt.Errorf("dispatch %s: %w", w.Identity, err)
	}
	if acked.Duplicate && b.reuses(ctx, w, acked.Sequence) {
		return 0, fmt.Errorf("dispatch %s: %w", w.Identity, schemas.ReusedID(w.Request.Request))
	}
	return acked.Sequence, nil
}

// reuses reports whether an earlier item, or the chain of its request once a worker has done it, is known to be of another
// body. What cannot be read is taken for the same, which it nearly always is: a second router dispatches what the first had.
func (b *Bus) reuses(ctx context.Context, w *schemas.Work, earlier uint64) bool {
	hash := ""
	if r, err := b.WorkRequest(ctx, w.Identity, earlier); err == nil {
		hash = r.BodyHash()
	} else if chain, err := b.Chain(ctx, w.Identity); err == nil {
		hash = chain.BodyHash()
	}
	return hash != "" && hash != w.Request.BodyHash()
}

// WorkExists reports whether the item with a sequence is still in LLM_WORK, by the word of the stream's leader.
func (b *Bus) WorkExists(ctx context.Context, sequence uint64) (bool, error) {
	_, err := b.getMessage(ctx, schemas.StreamWork, map[string]any{"seq": sequence})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// WorkRequest is the request of the item in LLM_WORK with a sequence, or [ErrNotFound] when that item is gone or belongs
// to another request.
func (b *Bus) WorkRequest(ctx context.Context, id schemas.Identity, sequence uint64) (*schemas.Request, error) {
	m, err := b.getMessage(ctx, schemas.StreamWork, map[string]any{"seq": sequence})
	if err != nil {
		return nil, err
	}
	token, _ := strings.CutPrefix(m.Subject, schemas.WorkSubject(""))
	work, err := schemas.DecodeWork(token, m.Header, m.Data)
	if err != nil || work.Identity != id {
		return nil, ErrNotFound
	}
	return &work.Request, nil
}

// DeadLetter keeps what could not be processed, with the reason. It may be kept more than once. A body that does not fit
// beside the reason is kept in LLM_OBJECTS, for as long as a result.
func (b *Bus) DeadLetter(ctx context.Context, id schemas.Identity, modelToken, reason string, h schemas.Header, body []byte) error {
	msg := nats.NewMsg(schemas.DLQSubject(dlqToken(id.Tenant), dlqToken(modelToken)))
	for key, values := range h {
		if schemas.IsOwnHeader(key) {
			msg.Header[key] = values
		}
	}
	msg.Header[schemas.HeaderTenant] = []string{id.Tenant}
	msg.Header[schemas.HeaderRequestID] = []string{id.Request}
	msg.Header[schemas.HeaderReason] = []string{oneLine(reason)}
	msg.Data = body
	_, err := b.publishStored(ctx, msg, transient)
	if errors.Is(err, nats.ErrMaxPayload) && msg.Data != nil {
		var object *schemas.Object
		if object, err = b.putObject(ctx, schemas.Identity{Tenant: dlqToken(id.Tenant), Request: dlqToken(id.Request)}, body); err == nil {
			msg.Header[schemas.HeaderObject], msg.Data = []string{object.String()}, nil
			_, err = b.publishStored(ctx, msg, transient)
		}
	}
	return wrap("write to the DLQ", err)
}

// dlqToken stands in for a name that is no legal token, since what is wrong may be the name.
func dlqToken(s string) string {
	if s == "" || len(s) > schemas.MaxModelTokenBytes {
		return "invalid"
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '.' || c == '*' || c == '>' {
			return "invalid"
		}
	}
	return s
}

func oneLine(s string) string {
	line := []byte(s[:min(len(s), 1024)])
	for i, c := range line {
		if c < ' ' {
			line[i] = ' '
		}
	}
	return string(line)
}

// Event publishes an operational event to LLM_EVENTS without waiting; it may be lost.
func (b *Bus) Event(kind string, data []byte) {
	if err := b.control.Publish(schemas.EventSubject(kind), data); err != nil {
		b.log.Warn("an event was not published", "kind", kind, "error", err)
	}
}

func acceptError(err error) error {
	answer, ok := errors.AsType[*jsError](err)
	switch {
	case ok && answer.ErrCode == codeStoreFailed:
		return schemas.Errorf(schemas.CodeOverloaded, "too many requests are waiting. Please try again in 1s.").WithRetryAfter(time.Second).WithCause(err)
	case ok:
		return schemas.Errorf(schemas.CodeUnavailable, "the request could not be stored; it was not accepted. Please try again in 5s.").WithRetryAfter(5 * time.Second).WithCause(err)
	}
	return unavailable(err)
}

func unavailable(err error) error {
	return schemas.Errorf(schemas.CodeUnavailable, "the request could not be stored; send it again with the same id. Please try again in 1s.").WithRetryAfter(time.Second).WithCause(err)
}

// watermark remembers whether the bounded streams have room for new requests.
type watermark struct {
	checked atomic.Int64 // unix nanoseconds
	full    atomic.Pointer[schemas.Error]
}

const (
	roomInterval = time.Second
	roomPercent  = 90
)

// checkRoom refuses new requests when a stream that running requests write to is 90 % full, so that nothing live is ever
// evicted. The streams are looked at once a second.
func (b *Bus) checkRoom(ctx context.Context) error {
	checked, now := b.room.checked.Load(), time.Now().UnixNano()
	if now-checked > int64(roomInterval) && b.room.checked.CompareAndSwap(checked, now) {
		if full, known := b.measureRoom(ctx); known {
			if before := b.room.full.Swap(full); before != nil && full == nil {
				b.log.Info("new requests are accepted again")
			}
		}
	}
	if full := b.room.full.Load(); full != nil {
		return full
	}
	return nil
}

// measureRoom says why there is no room, or nil. It is not known when a stream does not answer; the publish will tell.
func (b *Bus) measureRoom(ctx context.Context) (full *schemas.Error, known bool) {
	if b.cfg.Room != nil {
		if err := b.cfg.Room(); err != nil {
			return b.storageFull(err), true
		}
	}
	// A question that was lost with its connection must not hold the request until its caller's context ends.
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	for _, name := range []string{schemas.StreamReplies, schemas.StreamResults, objectsStream} {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return nil, false
		}
		info := stream.CachedInfo()
		if limit := info.Config.MaxBytes; limit > 0 && info.State.Bytes > uint64(limit)/100*roomPercent {
			return b.storageFull(fmt.Errorf("stream %s holds %d of %d bytes, which is over %d %%: raise its limit or shorten its age", name, info.State.Bytes, limit, roomPercent)), true
		}
	}
	return nil, true
}

// storageFull logs why requests are refused, once, and gives the caller's view of it.
func (b *Bus) storageFull(reason error) *schemas.Error {
	if b.room.full.Load() == nil {
		b.log.Error("new requests are refused", "error", reason)
	}
	return schemas.Errorf(schemas.CodeUnavailable, "the server's storage is full; nothing accepted is lost. Please try again in 30s.").WithRetryAfter(30 * time.Second)
}

// startSend opens the span of a publish.
func (b *Bus) startSend(ctx context.Context, destination string, id schemas.Identity) (context.Context, trace.Span) {
	return b.start(ctx, trace.SpanKindProducer, "send", destination, id)
}
