package ingest

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const (
	// doneEvent is the end mark in a dialect that has none. Its clients ignore events whose name they do not know.
	doneEvent = "event: done\n" + openai.Done
	// keepBuffer is the largest buffer that is kept for the next frame of any stream.
	keepBuffer = 64 << 10
	// deadlineSlack is how old a write deadline may be before it is set again: setting it costs more than a small write.
	deadlineSlack = time.Second
)

// eventStream writes an answer as server-sent events. It holds the HTTP status until the first event or until the hold
// time is over, whichever is first, because SDKs repeat a failed request only before that.
type eventStream struct {
	c       *call
	held    func()        // runs once, before the status is sent for want of an event
	timeout time.Duration // for one write

	mu       sync.Mutex // a timer writes too
	dialect  *dialect
	open     bool // the status is out
	running  bool // a worker has begun, so that the request waits no more
	closed   bool
	wrote    time.Time
	deadline time.Time
	timer    *time.Timer
	armed    sync.WaitGroup // counts the timer until it has run or is stopped
}

// newEventStream goes on holding the status, as it was since the request came. The caller must close the stream.
func newEventStream(c *call, held func()) *eventStream {
	e := &eventStream{c: c, held: held, dialect: c.dialect, timeout: c.s.cfg.WriteTimeout}
	if c.r.ProtoMajor == 2 {
		// It resets a stream when the deadline passes, also while nothing is being written.
		e.timeout = max(e.timeout, 2*c.s.cfg.Heartbeat)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.armed.Add(1)
	e.timer = time.AfterFunc(c.s.cfg.HoldStatus-time.Since(c.began), e.tick)
	return e
}

// close returns when nothing more will be written.
func (e *eventStream) close() {
	e.mu.Lock()
	e.closed = true
	if e.timer.Stop() {
		e.armed.Done()
	}
	e.mu.Unlock()
	e.armed.Wait()
}

// speak changes the dialect of what follows, when a reader of a stream has learnt what was asked for.
func (e *eventStream) speak(d *dialect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dialect = d
}

// opened reports whether the status is out.
func (e *eventStream) opened() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

// events writes the events of a frame at once.
func (e *eventStream) events(f *schemas.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.say(f, "", e.send)
}

// whole writes the events of the frame that ends an answer, and its end.
func (e *eventStream) whole(f *schemas.Frame, marked bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.say(f, e.mark(marked), e.write)
}

// say puts the events of a frame into words. e.mu is held.
func (e *eventStream) say(f *schemas.Frame, end string, send func(piece []byte) error) error {
	if !e.open {
		e.c.s.meters.firstEvent.Observe(time.Since(e.c.began).Seconds())
	}
	// An idle stream holds no buffer: there may be thousands of them.
	buf := e.c.s.buffers.take()
	defer e.c.s.buffers.give(buf)
	cursor := schemas.Cursor{Request: e.c.id.Request}
	d := e.dialect
	piece := slices.Grow((*buf)[:0], len(f.Data)+f.Count*d.eventBytes(cursor.Request))
	for index, event := range f.Events() {
		cursor.Index = index
		piece = d.appendEvent(piece, cursor, event)
	}
	piece = append(piece, end...)
	*buf = piece
	return send(piece)
}

// buffers are what frames become events in.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

func (b *buffers) give(buf *[]byte) {
	if cap(*buf) <= keepBuffer {
		b.pool.Put(buf)
	}
}

// piece writes events that are put into words already.
func (e *eventStream) piece(events []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open {
		e.c.s.meters.firstEvent.Observe(time.Since(e.c.began).Seconds())
	}
	return e.send(events)
}

// done ends a whole answer, with a mark if the dialect has one or marked asks for it.
func (e *eventStream) done(marked bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.write([]byte(e.mark(marked)))
}

// mark is what says that an answer is whole. e.mu is held.
func (e *eventStream) mark(marked bool) string {
	if e.dialect.done == "" && marked {
		return doneEvent
	}
	return e.dialect.done
}

// fail ends an answer that is not whole, in band: without it a reader would take what came for everything.
func (e *eventStream) fail(failure *schemas.Error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.send(e.dialect.appendError(nil, failure, e.c.id.Request))
}

// tick opens the stream when the hold time is over, and writes a heartbeat after each silence from then on.
func (e *eventStream) tick() {
	defer e.armed.Done()
	if !e.opened() {
		e.held()
	}
	var waiting *schemas.Waiting
	if e.due() {
		waiting = e.c.waiting()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	silent := time.Since(e.wrote)
	if !e.open || silent >= e.c.s.cfg.Heartbeat {
		silent = 0
		if !e.open {
			tellWaiting(e.c.w.Header(), waiting)
		}
		if err := e.send([]byte(waitingComment(waiting) + e.dialect.heartbeat)); err != nil {
			e.c.leave(err)
			return
		}
	}
	e.armed.Add(1)
	e.timer.Reset(e.c.s.cfg.Heartbeat - silent)
}

// due reports whether a heartbeat is, for a request that may still wait.
func (e *eventStream) due() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.closed && !e.running && e.c.status < 400 && (!e.open || time.Since(e.wrote) >= e.c.s.cfg.Heartbeat)
}

// begun notes that a worker has begun.
func (e *eventStream) begun() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = true
}

// send writes one piece and flushes it. e.mu is held.
func (e *eventStream) send(piece []byte) error {
	if err := e.write(piece); err != nil {
		return err
	}
	if err := e.c.control.Flush(); err != nil {
		return errLeft
	}
	return nil
}

// write writes one piece. The last of an answer is not flushed by itself: it leaves with the end of the body, in one packet.
// e.mu is held.
func (e *eventStream) write(piece []byte) error {
	e.wrote = time.Now()
	if e.wrote.Sub(e.deadline) > min(deadlineSlack, e.timeout/4) {
		e.deadline = e.wrote
		_ = e.c.control.SetWriteDeadline(e.wrote.Add(e.timeout))
	}
	if !e.open {
		e.begin()
	}
	if _, err := e.c.w.Write(piece); err != nil {
		return errLeft
	}
	return nil
}

func (e *eventStream) begin() {
	e.open = true
	h := e.c.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	e.c.sendHeader(http.StatusOK)
	if e.timer.Stop() { // it was set for the hold; when it has fired, it sets itself
		e.timer.Reset(e.c.s.cfg.Heartbeat)
	}
}
