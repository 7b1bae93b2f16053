package client

import (
	"iter"
	"slices"

	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// Event is one piece of an answer: a chat.completion.chunk as the model sent it, byte for byte, or the whole response when
// the body does not ask for a stream.
type Event struct {
	Cursor schemas.Cursor // its place; to go on after it, resume from Cursor.Index+1
	Data   []byte
}

// events takes the events out of frames and turns the terminal frame into the end of the sequence.
func events(id schemas.Identity, frames iter.Seq2[*schemas.Frame, error]) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for f, err := range frames {
			if err != nil {
				yield(Event{}, err)
				return
			}
			for index, data := range f.Events() {
				if !yield(Event{Cursor: schemas.Cursor{Request: id.Request, Index: index}, Data: data}, nil) {
					return
				}
			}
			if f.Kind == schemas.KindError {
				yield(Event{}, decodeError(f.Data))
				return
			}
		}
	}
}

// recorded yields what the result keeps as frames, the terminal one included.
func recorded(r *schemas.Result) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		if r.Status == schemas.StatusDeleted {
			yield(nil, schemas.Errorf(schemas.CodeStreamExpired, "the answer to the request %q was deleted: send it again under another id", r.RequestID))
			return
		}
		var index uint64
		for f, err := range eventlog.Frames(r.Events, r.Accepted) {
			if !yield(f, err) || err != nil {
				return
			}
			index = f.Next()
		}
		switch {
		case len(r.Error) > 0:
			yield(&schemas.Frame{Kind: schemas.KindError, Index: index, Data: r.Error}, nil)
		case r.Events == nil && len(r.Response) > 0:
			yield(&schemas.Frame{Kind: schemas.KindEnd, Index: index, Count: 1, Data: r.Response}, nil)
		}
	}
}

func all(frames []*schemas.Frame) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for f := range slices.Values(frames) {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// after leaves out the events before index from.
func after(from uint64, frames iter.Seq2[*schemas.Frame, error]) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for f, err := range frames {
			if err == nil {
				f.From(from)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func decodeError(data []byte) error {
	e, err := schemas.DecodeError(data)
	if err != nil {
		return schemas.AsError(err)
	}
	return e
}
