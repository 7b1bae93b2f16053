package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const (
	overhead  = 64 << 10              // of a message beside its largest piece
	drainWait = 50 * time.Millisecond // for the status of an answer that is whole

	deadlineSkew = 100 * time.Millisecond
)

// Call is one call of the server. It is owned by the goroutine that runs the loop over it.
type Call struct {
	upstream.Clock
	client  *Client
	request *inference.GenerateRequest
	yield   func(inference.Event, error) bool

	events  int  // messages that counted
	stopped bool // the loop body broke out
	held    bool // the last event was passed on with the promise of more
}

// NewCall prepares a call, whose time begins now. Its events go to yield, which may be nil for a call that has none. The
// caller must close it.
func (c *Client) NewCall(ctx context.Context, r *inference.GenerateRequest, yield func(inference.Event, error) bool) *Call {
	call := &Call{client: c, request: r, yield: yield}
	call.Begin(c.outgoing(ctx, r.Header), c.bounds, r.Deadline)
	return call
}

// Stopped reports whether the loop body broke out, after which nothing may be passed on.
func (c *Call) Stopped() bool { return c.stopped }

// Options of a call whose largest piece is sent or received with at most limit bytes.
func Options(limit int) []grpc.CallOption {
	return []grpc.CallOption{grpc.MaxCallRecvMsgSize(limit + overhead), grpc.MaxCallSendMsgSize(limit + overhead)}
}

// Pass hands an event to the loop body, and reports whether to go on.
func (c *Call) Pass(event inference.Event) bool {
	c.Hush() // the loop body's time is not the server's
	c.stopped = !c.yield(event, nil)
	c.held = event.More
	return !c.stopped
}

// letGo lets an event go that was passed on with the promise of more, when what followed was not for the caller.
func (c *Call) letGo() {
	if c.held && !c.stopped {
		c.Pass(inference.Event{Chunk: &openai.Chunk{}}) // seldom: a call does not keep an empty chunk for it
	}
}

// receiver is the client's end of a stream.
type receiver[T any] interface{ Recv() (*T, error) }

// Stream passes on the messages of a stream until message says that the answer has ended, or no more come. More tells
// message that another one is here already; a message that is no sign of life of the model does not count. Whether the
// answer is whole is for the caller to judge, unless the error says what went wrong.
func Stream[T any](c *Call, stream receiver[T], message func(m *T, more bool) (counts, end bool, err error)) error {
	queue := newAhead[T]()
	queue.reading.Go(func() { queue.fill(c.Context(), stream) })
	defer queue.reading.Wait()
	defer c.Close() // so that the reader ends
	if c.request.Stream {
		c.AwaitFirst()
	}
	for {
		m, more, err := queue.next()
		switch {
		case errors.Is(err, io.EOF):
			c.Hush()
			c.letGo()
			return nil
		case err != nil:
			return c.Failed(err)
		}
		counts, end, err := message(m, more)
		if counts {
			c.events++
		}
		switch {
		case err != nil || c.stopped:
			return err
		case end:
			c.Hush()
			c.letGo()
			queue.drain(drainWait)
			return nil
		case !more:
			c.letGo()
			if counts || !c.Listening() {
				c.AwaitNext()
			}
		}
	}
}

// Failed is the error of a call that ended in err.
func (c *Call) Failed(err error) *schemas.Error {
	s := status.Convert(err)
	if s.Code() == codes.DeadlineExceeded {
		c.awaitDeadline()
	}
	if c.Context().Err() != nil {
		return inference.ContextError(c.Context())
	}
	return c.failed(s)
}

// awaitDeadline lets this side's clock reach a deadline that the server, which was told of it, has seen pass a moment
// earlier.
func (c *Call) awaitDeadline() {
	if end, ok := c.Context().Deadline(); ok && time.Until(end) < deadlineSkew {
		<-c.Context().Done()
	}
}
