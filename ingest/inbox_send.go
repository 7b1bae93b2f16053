package ingest

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// frame sends the events of a frame: in one message if they fit, else in as few as hold whole events, and an event that is
// larger than a message in parts.
func (i *inbox) frame(f *schemas.Frame) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status == 0 {
		i.s.meters.firstEvent.Observe(time.Since(i.began).Seconds())
	}
	for piece := range pieces(f, i.ask.MaxData()) {
		i.header[schemas.HeaderFrame] = []string{piece.Header()}
		if err := i.parts(piece.Data); err != nil {
			return err
		}
		i.toldCache()
	}
	return nil
}

// parts sends a payload in one message or, marked as such, in several. i.mu is held.
func (i *inbox) parts(data []byte) error {
	size := i.ask.MaxData()
	if len(data) <= size {
		return i.send(data)
	}
	defer delete(i.header, schemas.HeaderPart)
	of := (len(data) + size - 1) / size
	for n := 1; n <= of; n++ {
		i.header[schemas.HeaderPart] = []string{strconv.Itoa(n) + "/" + strconv.Itoa(of)}
		if err := i.send(data[:min(size, len(data))]); err != nil {
			return err
		}
		data = data[min(size, len(data)):]
	}
	return nil
}

// pieces cuts a frame between events, so that each piece has at most size bytes or is a single event.
func pieces(f *schemas.Frame, size int) iter.Seq[*schemas.Frame] {
	return func(yield func(*schemas.Frame) bool) {
		rest := *f
		for len(rest.Data) > size && rest.Count > 1 {
			piece := rest
			piece.Count, piece.Data = 0, nil
			for index, event := range rest.Events() {
				if piece.Count > 0 && len(piece.Data)+1+len(event) > size {
					break
				}
				piece.Count, piece.Data = int(index-rest.Index)+1, rest.Data[:len(piece.Data)+len(event)+min(piece.Count, 1)]
			}
			rest.From(piece.Next())
			if !yield(&piece) {
				return
			}
		}
		if rest.Count > 0 {
			yield(&rest)
		}
	}
}

// send sends one message that is not the last. i.mu is held.
func (i *inbox) send(data []byte) error {
	i.wrote = time.Now()
	if i.ask.Reply == "" {
		return nil
	}
	i.header[schemas.HeaderRequestID] = []string{i.id.Request}
	if err := i.sent(i.ask.Send(i.ctx, i.s.cfg.WriteTimeout, i.header, data)); err != nil {
		return err
	}
	i.status = http.StatusOK
	return nil
}

// sent is what an error of sending means: the caller is told of a gap, and cannot be told anything when it is out of reach.
func (i *inbox) sent(err error) error {
	switch {
	case err == nil || i.ctx.Err() != nil:
		return err
	case errors.Is(err, bus.ErrGap):
		return schemas.Errorf(schemas.CodeUnavailable, "the connection to NATS was lost while the answer was sent: read on by resume, from the last event you have").WithCause(err)
	}
	i.log(slog.LevelWarn, "an answer could not be sent", slog.Any(telemetry.KeyError, err))
	return errLeft
}

// finish ends an answer with the empty message.
func (i *inbox) finish() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.giveBack()
	if i.ask.Reply != "" {
		if err := i.sent(i.ask.End(i.ctx, i.s.cfg.WriteTimeout)); err != nil {
			return err
		}
	}
	i.status = http.StatusOK
	return nil
}

// respond sends an answer of one message.
func (i *inbox) respond(data []byte) error {
	i.mu.Lock()
	err := i.parts(data)
	i.mu.Unlock()
	if err != nil {
		return err
	}
	return i.finish()
}

// fail ends an answer with an error, unless the caller is gone.
func (i *inbox) fail(err error) {
	e := i.failure(err)
	if e == nil || i.ask.Reply == "" {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	ctx := context.WithoutCancel(i.ctx) // it may be the drain that ends the answer
	h := schemas.Header{schemas.HeaderRequestID: {i.id.Request}}
	h[schemas.HeaderServiceError] = []string{oneLine(e.Message)}
	h[schemas.HeaderServiceErrorCode] = []string{strconv.Itoa(i.status)}
	err = i.ask.Send(ctx, cutLimit, h, e.Encode())
	if errors.Is(err, bus.ErrGap) { // an error says already that the answer is not whole
		err = i.ask.Send(ctx, cutLimit, h, e.Encode())
	}
	i.giveBack()
	if err == nil {
		err = i.ask.Send(ctx, cutLimit, nil, nil)
	}
	if err != nil {
		i.log(slog.LevelWarn, "an error could not be sent", slog.Any(telemetry.KeyError, err))
	}
}

// refuse answers with an error in the handler of the endpoint, where the framework counts it.
func (i *inbox) refuse(err error) {
	e := i.failure(err)
	if e == nil || i.ask.Reply == "" {
		return
	}
	if err := i.ask.Refuse(strconv.Itoa(i.status), oneLine(e.Message), schemas.Header{schemas.HeaderRequestID: {i.id.Request}}, e.Encode()); err != nil {
		i.log(slog.LevelWarn, "a refusal could not be sent", slog.Any(telemetry.KeyError, err))
	}
}

// failure is what the caller is to be told, and sets the status of it; nil when the caller is gone.
func (i *inbox) failure(err error) *schemas.Error {
	e := asError(i.ctx, err)
	if e == nil {
		i.status = statusClientClosed
		return nil
	}
	if e.Code == schemas.CodeInternal {
		i.log(slog.LevelError, "a request failed", slog.Any(telemetry.KeyError, err))
	}
	i.status = statusOf(e.Code)
	return e
}

// oneLine is a text as it can stand in a header.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}
