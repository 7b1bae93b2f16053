package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// What is read ahead of the loop body. More stays in the server's hands, by the flow control of the connection.
const (
	aheadMessages = 256
	aheadBytes    = 1 << 20
)

// ahead reads a stream while the loop body is busy, so that what came meanwhile leaves in one frame. A stream of gRPC
// cannot be asked whether there is more.
type ahead[T any] struct {
	reading sync.WaitGroup
	arrived chan struct{} // capacity 1: there may be something to take
	room    chan struct{} // capacity 1: there may be room again

	mu    sync.Mutex
	queue []queued[T]
	bytes int
	err   error // what the stream ended with
}

type queued[T any] struct {
	message *T
	bytes   int
}

func newAhead[T any]() *ahead[T] {
	return &ahead[T]{arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// fill reads until the stream ends, which it does when ctx ends.
func (a *ahead[T]) fill(ctx context.Context, stream receiver[T]) {
	for {
		m, err := stream.Recv()
		full := a.put(m, err)
		if err != nil {
			return
		}
		for full {
			select {
			case <-a.room:
			case <-ctx.Done(): // Recv will tell
			}
			if ctx.Err() != nil {
				break
			}
			full = a.full()
		}
	}
}

func (a *ahead[T]) put(m *T, err error) (full bool) {
	a.mu.Lock()
	if err != nil {
		a.err = err
	} else {
		size := proto.Size(any(m).(proto.Message))
		a.queue = append(a.queue, queued[T]{m, size})
		a.bytes += size
	}
	full = a.fullLocked()
	a.mu.Unlock()
	signal(a.arrived)
	return full
}

func (a *ahead[T]) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fullLocked()
}

func (a *ahead[T]) fullLocked() bool { return len(a.queue) >= aheadMessages || a.bytes >= aheadBytes }

// next waits for the next message, and tells whether there is another one behind it. The error is what the stream ended
// with, after all of its messages.
func (a *ahead[T]) next() (m *T, more bool, err error) {
	for {
		a.mu.Lock()
		if len(a.queue) > 0 {
			first := a.queue[0]
			a.queue[0] = queued[T]{}
			if a.queue = a.queue[1:]; len(a.queue) == 0 {
				a.queue = nil
			}
			a.bytes -= first.bytes
			more = len(a.queue) > 0
			a.mu.Unlock()
			signal(a.room)
			return first.message, more, nil
		}
		err = a.err
		a.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
		<-a.arrived
	}
}

// drain waits for the end of a stream whose answer is whole, for at most d.
func (a *ahead[T]) drain(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		a.mu.Lock()
		ended := a.err != nil
		a.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-a.arrived:
		case <-timer.C:
			return
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
