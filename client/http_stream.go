package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func (t *overHTTP) send(ctx context.Context, r *outgoing) error {
	path, err := pathOf(r.Op)
	if err != nil {
		return err
	}
	var sent sending
	return t.retry(ctx, func() error {
		h := r.headers()
		h.Set(schemas.HeaderPrefer, schemas.PreferAsync)
		response, err := t.do(ctx, http.MethodPost, path, r.Body, h)
		if err != nil {
			return sent.tried(err)
		}
		r.named(response)
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxRefusal)) // so that the connection serves again
		return response.Body.Close()
	})
}

// named takes the id under which the door has the request: that of the run which it belongs to.
func (r *outgoing) named(response *http.Response) {
	id := response.Header.Get(headerRequestID)
	if id == "" {
		id = response.Header.Get(headerMessagesID)
	}
	if schemas.ValidateRequestID(id) == nil {
		r.Identity.Request = id
	}
}

// sendAndRead hands the request over and reads its frames' own events from the first: what a door answers to a request in
// the Responses dialect is made of them, and has other events.
func (t *overHTTP) sendAndRead(ctx context.Context, r *outgoing) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := t.send(ctx, r); err != nil {
			yield(Event{}, err)
			return
		}
		t.resume(ctx, r.Identity, 0)(yield)
	}
}

// stream posts the request until a door has begun to answer, and reads on from any door after that.
func (t *overHTTP) stream(ctx context.Context, r *outgoing) iter.Seq2[Event, error] {
	if r.Op == schemas.OpResponses {
		return t.sendAndRead(ctx, r)
	}
	path, err := pathOf(r.Op)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(Event{}, err) }
	}
	var sent sending
	began := false
	return t.follow(ctx, 0, func(ctx context.Context, next uint64, hear func(), emit func(Event) bool) error {
		if began {
			return t.read(ctx, r.Identity, next, hear, emit)
		}
		return t.reading(ctx, hear, func(ctx context.Context, alive func()) error {
			response, err := t.do(ctx, http.MethodPost, path, r.Body, r.headers())
			if err != nil {
				return sent.tried(err)
			}
			defer response.Body.Close()
			r.named(response)
			if began = r.streams; began {
				return r.answer(response, alive, emit)
			}
			return sent.tried(r.answer(response, alive, emit))
		})
	})
}

func (t *overHTTP) resume(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error] {
	return t.follow(ctx, from, func(ctx context.Context, next uint64, hear func(), emit func(Event) bool) error {
		return t.read(ctx, id, next, hear, emit)
	})
}

// read takes up the events of a request from next on. A door that has no room now is asked again.
func (t *overHTTP) read(ctx context.Context, id schemas.Identity, next uint64, hear func(), emit func(Event) bool) error {
	path := "/v1/streams/" + id.Request
	if next > 0 {
		path += "?starting_after=" + strconv.FormatUint(next-1, 10)
	}
	return t.reading(ctx, hear, func(ctx context.Context, alive func()) error {
		response, err := t.do(ctx, http.MethodGet, path, nil, nil)
		if err != nil {
			return later(err)
		}
		defer response.Body.Close()
		return readEvents(watched{response.Body, alive}, emit)
	})
}

// reading runs do with a context that ends when alive was not called for too long.
func (t *overHTTP) reading(ctx context.Context, hear func(), do func(ctx context.Context, alive func()) error) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	var watch *time.Timer
	defer func() {
		if watch != nil {
			watch.Stop()
		}
	}()
	return do(ctx, func() {
		hear()
		if watch == nil {
			watch = time.AfterFunc(t.silence, cut)
			return
		}
		watch.Reset(t.silence)
	})
}

// watched is a body that tells when something came.
type watched struct {
	io.Reader
	alive func()
}

func (w watched) Read(p []byte) (int, error) {
	w.alive()
	return w.Reader.Read(p)
}

// answer reads what a door answered to the request.
func (r *outgoing) answer(response *http.Response, alive func(), emit func(Event) bool) error {
	if r.streams {
		return readEvents(watched{response.Body, alive}, emit)
	}
	whole, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &broken{cause: err}
	case len(whole) > maxAnswer:
		return schemas.Errorf(schemas.CodeUnsupported, "the answer has more than %d bytes: ask for a stream", maxAnswer)
	case !json.Valid(whole):
		return &broken{cause: errCut}
	}
	emit(Event{Cursor: schemas.Cursor{Request: r.Identity.Request}, Data: whole})
	return nil
}

// Events that are none of an answer's.
var (
	errorObject   = []byte(`{"error":`)
	messagesError = []byte(`{"type":"error",`)
	messagesPing  = []byte(`{"type":"ping"}`)
	// messagesStop is the last event of an answer in the Messages dialect, and the only mark of its end.
	messagesStop = []byte(`{"type":"message_stop"`)
)

// readEvents reads server-sent events of either dialect until their end mark, which is nil, or until an error.
func readEvents(body io.Reader, emit func(Event) bool) error {
	reader := openai.NewReader(body)
	defer reader.Release()
	for event, err := range reader.Events() {
		switch {
		case errors.Is(err, openai.ErrEventTooLarge):
			return schemas.Errorf(schemas.CodeUnsupported, "an event of the answer is too large for this client: %w", err)
		case err != nil:
			return &broken{cause: err}
		case event.Cut:
			return &broken{cause: errCut}
		case event.Done():
			return nil
		case bytes.HasPrefix(event.Data, errorObject), bytes.HasPrefix(event.Data, messagesError):
			return inBand(event.Data)
		case len(event.ID) == 0 && bytes.Equal(event.Data, messagesPing):
			continue
		}
		cursor, err := schemas.ParseCursor(string(event.ID))
		if err != nil {
			return schemas.Errorf(schemas.CodeUnavailable, "the answer has an event without a cursor, which no door of Weir sends: is the URL right?").WithCause(err)
		}
		if !emit(Event{Cursor: cursor, Data: bytes.Clone(event.Data)}) {
			return &broken{cause: errCut}
		}
		if bytes.HasPrefix(event.Data, messagesStop) {
			return nil
		}
	}
	return &broken{cause: errCut}
}

// inBand is an error that came after the status. A door that stops leaves the request to the others.
func inBand(data []byte) error {
	e, err := decodeRefusal(data)
	if err != nil {
		return schemas.AsError(err)
	}
	if e.Code == schemas.CodeShutdown {
		return &broken{cause: e}
	}
	return e
}
