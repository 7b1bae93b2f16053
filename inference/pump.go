package inference

import (
	"context"
	"iter"
	"math"
	"sync"

	"github.com/weir-llm/weir/schemas"
)

// pumpBytes bounds what waits for a write; beyond it the model waits.
const pumpBytes = 1 << 20

// pump holds what a model said until it is written. One goroutine fills it, another empties it.
type pump struct {
	limit int

	mu      sync.Mutex
	events  []byte  // newline-separated
	lengths []int   // of the events
	said    *answer // once done without err
	err     *schemas.Error
	done    bool

	filled chan struct{} // capacity 1: there is something to take
	space  chan struct{} // capacity 1: something was taken
}

// newPump makes a pump that holds pumpBytes of a stream; a unary answer has to fit as a whole.
func newPump(stream bool) *pump {
	limit := pumpBytes
	if !stream {
		limit = math.MaxInt
	}
	return &pump{limit: limit, filled: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// fill copies everything that generate yields into the pump until it ends, and waits while the pump is full.
func (p *pump) fill(ctx context.Context, generate iter.Seq2[Event, error]) {
	said, failed := answer{}, error(nil)
	for event, err := range generate {
		if failed = err; err != nil {
			break
		}
		said.note(event.Chunk)
		if len(event.Data) > 0 {
			p.put(event.Data)
		}
		if !p.waitSpace(ctx) {
			failed = context.Cause(ctx)
			break
		}
	}
	switch {
	case failed == nil:
		p.finish(&said, nil)
	case ctx.Err() != nil:
		p.finish(nil, ContextError(ctx)) // the reason, not how the call noticed
	default:
		p.finish(nil, schemas.AsError(failed))
	}
}

func (p *pump) put(data []byte) {
	p.mu.Lock()
	if len(p.lengths) > 0 {
		p.events = append(p.events, '\n')
	}
	p.events = append(p.events, data...)
	p.lengths = append(p.lengths, len(data))
	p.mu.Unlock()
	signal(p.filled)
}

func (p *pump) finish(said *answer, err *schemas.Error) {
	p.mu.Lock()
	p.said, p.err, p.done = said, err, true
	p.mu.Unlock()
	signal(p.filled)
}

func (p *pump) waitSpace(ctx context.Context) bool {
	for {
		p.mu.Lock()
		full := len(p.events) >= p.limit
		p.mu.Unlock()
		if !full {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.space:
		}
	}
}

// take removes what fits in a frame: everything, or as many events as fit inline, or one that does not. ended is true
// when nothing is left and nothing will come.
func (p *pump) take() (data []byte, count int, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lengths) == 0 {
		return nil, 0, p.done
	}
	if len(p.events) <= schemas.InlineBytes {
		data, count = p.events, len(p.lengths)
		p.events, p.lengths = nil, p.lengths[:0]
	} else {
		data, count = p.takeSome()
	}
	signal(p.space)
	return data, count, false
}

func (p *pump) takeSome() (data []byte, count int) {
	size := p.lengths[0]
	count = 1
	for count < len(p.lengths) && size+1+p.lengths[count] <= schemas.InlineBytes {
		size += 1 + p.lengths[count]
		count++
	}
	data = append([]byte(nil), p.events[:size]...)
	rest := min(size+1, len(p.events))
	p.events = append(p.events[:0], p.events[rest:]...)
	p.lengths = append(p.lengths[:0], p.lengths[count:]...)
	return data, count
}

// whole reports whether the stream has ended.
func (p *pump) whole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// ending returns how the stream ended; it may be called once it has.
func (p *pump) ending() (*answer, *schemas.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said, p.err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
