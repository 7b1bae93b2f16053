package client

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

func (t *tenant) send(ctx context.Context, r *outgoing) error {
	h := r.natsHeaders()
	h[schemas.HeaderPrefer] = []string{schemas.PreferAsync}
	var sent sending
	return t.retry(ctx, func() error {
		msg, err := t.once(ctx, schemas.ChatSubject(r.Tenant, r.ModelToken), h, r.Body)
		if err != nil {
			return sent.tried(err)
		}
		r.namedBy(msg)
		return nil
	})
}

// natsHeaders are those of a request. Its id, or its key, makes it safe to send again.
func (r *outgoing) natsHeaders() schemas.Header {
	h := r.Encode()
	if r.key != "" {
		delete(h, schemas.HeaderRequestID)
		h[headerIdempotencyKey] = []string{r.key}
	}
	return h
}

// namedBy takes the id under which the door has the request: that of the run which it belongs to.
func (r *outgoing) namedBy(msg *nats.Msg) {
	if id := msg.Header.Get(schemas.HeaderRequestID); schemas.ValidateRequestID(id) == nil {
		r.Identity.Request = id
	}
}

// stream sends the request until a door has begun to answer, and reads on from any door after that.
func (t *tenant) stream(ctx context.Context, r *outgoing) iter.Seq2[Event, error] {
	var sent sending
	began := false
	return t.follow(ctx, 0, func(ctx context.Context, next uint64, hear func(), emit func(Event) bool) error {
		if began {
			return t.read(ctx, r.Identity, next, hear, emit)
		}
		h := r.natsHeaders()
		h[schemas.HeaderStreamEvents] = []string{schemas.TakesSigns} // a door that is not heard of counts as gone
		i, err := t.ask(ctx, schemas.ChatSubject(r.Tenant, r.ModelToken), h, r.Body)
		if err != nil {
			return sent.tried(err)
		}
		defer i.close()
		err = i.frames(func(msg *nats.Msg) { r.namedBy(msg); began = true; hear() }, emit)
		if began { // an error is the request's own from here on
			return err
		}
		return sent.tried(err)
	})
}

func (t *tenant) resume(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error] {
	return t.follow(ctx, from, func(ctx context.Context, next uint64, hear func(), emit func(Event) bool) error {
		return t.read(ctx, id, next, hear, emit)
	})
}

// read takes up the events of a request from next on. A door that has no room now is asked again.
func (t *tenant) read(ctx context.Context, id schemas.Identity, next uint64, hear func(), emit func(Event) bool) error {
	var cursor []byte
	if next > 0 {
		cursor = strconv.AppendUint(nil, next-1, 10)
	}
	i, err := t.ask(ctx, t.readSubject(id), nil, cursor)
	if err != nil {
		return err
	}
	defer i.close()
	return later(i.frames(func(*nats.Msg) { hear() }, emit))
}

// frames reads the events of an answer until its end, which is nil, or until an error. The door tells of a gap of its own
// as an error that is passing; one that the server left shows in the indexes.
func (i *inbox) frames(heard func(*nats.Msg), emit func(Event) bool) error {
	var whole assembly
	for first := true; ; first = false {
		msg, err := i.next()
		if e, ok := errors.AsType[*schemas.Error](err); ok && !first && e.Code == schemas.CodeUnavailable {
			return &broken{cause: err, pause: e.RetryAfter}
		}
		if err != nil || msg == nil {
			return err
		}
		heard(msg)
		if msg.Header.Get(schemas.HeaderFrame) == "" {
			continue // a sign of life
		}
		if !whole.add(msg) {
			continue
		}
		frame, err := schemas.DecodeFrame(schemas.Header(msg.Header), whole.take())
		if err != nil {
			return &broken{cause: err}
		}
		for index, data := range frame.Events() {
			if !emit(Event{Cursor: schemas.Cursor{Request: msg.Header.Get(schemas.HeaderRequestID), Index: index}, Data: data}) {
				return &broken{cause: errCut}
			}
		}
	}
}

// assembly puts together what came in parts. A part that is missing leaves less than the whole, which is no JSON; so parts
// are counted.
type assembly struct {
	data []byte
	next int
}

// add takes a message and reports whether the payload is whole.
func (a *assembly) add(msg *nats.Msg) bool {
	part := msg.Header.Get(schemas.HeaderPart)
	if part == "" {
		a.data, a.next = msg.Data, 0
		return true
	}
	text, of, _ := strings.Cut(part, "/")
	n, err := strconv.Atoi(text)
	if n == 1 {
		a.data, a.next = nil, 1
	}
	if err != nil || n != a.next {
		a.next = 0 // until the next first part; the index shows what is missing
		return false
	}
	a.data = append(a.data, msg.Data...)
	a.next++
	return text == of
}

// take gives what was put together and begins anew.
func (a *assembly) take() []byte {
	data := a.data
	a.data, a.next = nil, 0
	return data
}
