package upstream

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const (
	firstBuffer   = 64 << 10 // set aside for a reply because it says that it is so long
	maxErrorBytes = 64 << 10 // read of a reply that reports an error
)

// Call is one call of the server. It is owned by the goroutine that runs the loop over it.
type Call struct {
	client  *Client
	request *inference.GenerateRequest
	yield   func(inference.Event, error) bool
	stopped bool // the loop body broke out
	held    bool // the last event was passed on with the promise of more

	Clock

	malformed int // events that were left out
	untold    int // of them, since the last that was passed on
}

// NewCall prepares a call, whose time begins now. Its events go to yield, which may be nil for a call that has none. The
// caller must close it.
func (c *Client) NewCall(ctx context.Context, r *inference.GenerateRequest, yield func(inference.Event, error) bool) *Call {
	call := &Call{client: c, request: r, yield: yield}
	call.Begin(ctx, c.bounds, r.Deadline)
	return call
}

// Stopped reports whether the loop body broke out, after which nothing may be passed on.
func (c *Call) Stopped() bool { return c.stopped }

// Send makes the HTTP call and returns a reply whose status is success. The header is added to those of the client.
func (c *Call) Send(method, path string, body []byte, header http.Header) (*http.Response, error) {
	if c.request.Stream {
		c.AwaitFirst()
	}
	request := (&http.Request{Method: method, URL: c.client.at(path), Header: c.header(method, header)}).WithContext(c.ctx)
	if c.request.Stream {
		defer send(request, body).forget()
	} else {
		sendAtOnce(request, body)
	}
	// Not by an http.Client, which would follow redirects: they would carry the credentials to an address the operator did not
	// configure.
	reply, err := c.client.transport.RoundTrip(request)
	if err != nil {
		return nil, c.failed(err)
	}
	if reply.StatusCode >= 200 && reply.StatusCode < 300 {
		return reply, nil
	}
	defer reply.Body.Close()
	c.AwaitNext()
	text, _, _ := readAtMost(reply.Body, reply.ContentLength, maxErrorBytes) // the status alone tells enough
	return nil, openai.ReplyError(reply.StatusCode, reply.Header, text)
}

func (c *Call) header(method string, more http.Header) http.Header {
	h := maps.Clone(c.client.header)
	maps.Copy(h, more)
	for _, name := range [...]string{schemas.HeaderTraceParent, schemas.HeaderTraceState} {
		if v := c.request.Header[name]; len(v) > 0 {
			h.Set(name, v[0])
		}
	}
	if method == http.MethodPost {
		h.Set("Content-Type", "application/json")
	}
	switch {
	case more.Get("Accept") != "":
	case c.request.Stream:
		h.Set("Accept", "text/event-stream")
	default:
		h.Set("Accept", "application/json")
	}
	return h
}

// Pass hands an event to the loop body, and reports whether to go on.
func (c *Call) Pass(event inference.Event) bool {
	event.LeftOut, c.untold = c.untold, 0
	c.Hush() // the loop body's time is not the server's
	c.stopped = !c.yield(event, nil)
	c.held = event.More
	return !c.stopped
}

// Fail hands an error to the loop body, unless that broke out. It stands apart because an event on the stack would be there
// while the next is waited for, of every stream.
//
//go:noinline
func (c *Call) Fail(err error) {
	if !c.stopped {
		c.yield(inference.Event{}, err)
	}
}

// letGo lets an event go that was passed on with the promise of more, when what followed was not for the caller.
func (c *Call) letGo() {
	if c.held && !c.stopped {
		c.Pass(inference.Event{Chunk: &openai.Chunk{}}) // seldom: a call does not keep an empty chunk for it
	}
}

// Document reads a reply that is not a stream and has at most limit bytes.
func (c *Call) Document(reply *http.Response, limit int64) ([]byte, error) {
	defer reply.Body.Close()
	c.AwaitNext()
	data, more, err := readAtMost(activity{reply.Body, c}, reply.ContentLength, limit)
	c.Hush()
	switch {
	case err != nil:
		return nil, c.broken(err)
	case more:
		return nil, TooLarge(limit)
	}
	return openai.ToUTF8(data), nil
}

// Exchange makes a call outside Generate and returns the JSON document it was answered with, of at most limit bytes. What it
// says is read into chunk.
func (c *Call) Exchange(method, path string, body []byte, header http.Header, limit int64, chunk *openai.Chunk) ([]byte, error) {
	reply, err := c.Send(method, path, body, header)
	if err != nil {
		return nil, err
	}
	data, err := c.Document(reply, limit)
	if err != nil {
		return nil, err
	}
	if err := chunk.Peek(data); err != nil {
		return nil, NotAnAnswer(data, err)
	}
	if chunk.Error != "" {
		return nil, openai.EventError([]byte(chunk.Error))
	}
	return data, nil
}

// activity postpones the idle timeout with every piece that arrives.
type activity struct {
	io.Reader
	call *Call
}

func (a activity) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 && err == nil {
		a.call.Alive()
	}
	return n, err
}

// readAtMost reads a body that is announced to have so many bytes, or -1, and may have at most limit; whether there was
// more is the second result.
func readAtMost(r io.Reader, announced, limit int64) (data []byte, more bool, err error) {
	var b bytes.Buffer
	b.Grow(int(min(max(announced, 0), firstBuffer)) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(r, limit+1))
	if int64(b.Len()) > limit {
		return b.Bytes()[:limit], true, err
	}
	return b.Bytes(), false, err
}
