package ingest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// sign is the payload of a message that says only that the answer is still to come. An empty one would end it, and white
// space between JSON values means nothing.
const sign = "\n"

// inbox is an exchange over NATS. Its answer is the frames of the request that hold events, each as one message with the
// frame's own header, then an empty message; an error goes before the empty one (docs/adr/0007).
type inbox struct {
	exchange
	ask  *bus.Ask
	stop func() // watching whether the caller is still there
	give func() // gives its place back; nil without one

	mu      sync.Mutex // a timer sends too
	header  schemas.Header
	wrote   time.Time
	closed  bool
	running bool
	timer   *time.Timer
	armed   sync.WaitGroup // counts the timer until it has run or is stopped
}

func (v *service) newInbox(endpoint string, ask *bus.Ask) *inbox {
	ctx, span := v.s.tracer.Start(bus.Extract(v.work, ask.Header), "process "+endpoint, trace.WithSpanKind(trace.SpanKindServer))
	ctx, leave := context.WithCancelCause(ctx)
	i := &inbox{
		exchange: exchange{s: v.s, ctx: ctx, leave: leave, span: span, route: "NATS " + endpoint, began: time.Now()},
		ask:      ask, header: make(schemas.Header, 2),
	}
	i.id.Tenant = tenantOf(ask.Subject)
	i.name(newRequestID())
	i.stop = ask.Watch(func() { leave(errLeft) })
	v.s.meters.open.Inc()
	return i
}

// tenantOf is the third token of every subject of the service.
func tenantOf(subject string) string {
	tokens := strings.SplitN(subject, ".", 4)
	return tokens[min(2, len(tokens)-1)]
}

// trusted reports whether the answer may go where the caller wants it: a tenant may choose only what it may listen to.
func (i *inbox) trusted() bool {
	if i.ask.Edge {
		return schemas.IsEdgeInbox(i.id.Tenant, i.ask.Reply)
	}
	return i.ask.Reply != ""
}

func (i *inbox) name(request string) {
	i.id.Request = request
}

func (i *inbox) attached(bool) {} // every message says which request it is of

// end records the exchange. A panic ends here: it costs one caller its answer and is logged with its stack.
func (i *inbox) end(stats *endpointStats) {
	if reason := recover(); reason != nil {
		i.logPanic(reason)
		i.fail(schemas.AsError(errPanicked))
	}
	i.stop()
	if i.status == 0 {
		i.status = statusClientClosed
	}
	if i.status == http.StatusOK {
		stats.answered.Add(1)
	} else {
		stats.failed.Add(1)
	}
	i.record()
}

// giveBack gives the place of the exchange back, before the caller learns that it has its whole answer: the next request
// must find the place free.
func (i *inbox) giveBack() {
	if i.give != nil {
		i.give()
		i.give = nil
	}
}

// answer sends the frames: those of a stream as they come, or the one that holds a whole response.
func (i *inbox) answer(streams bool, all frames, held func()) (finished bool, err error) {
	i.beat(held, streams || first(i.ask.Header, schemas.HeaderStreamEvents) == schemas.TakesSigns)
	defer i.rest()
	for f, err := range all {
		if err != nil {
			return false, err
		}
		if f.Start != nil {
			i.begun()
		}
		i.tellCache(f)
		switch {
		case f.Kind == schemas.KindError:
			return true, failureOf(f)
		case f.Kind == schemas.KindEnd && f.Count == 0 && !streams:
			return true, schemas.AsError(errors.New("a unary request ended without a response"))
		case f.Count > 0: // a worker that starts, or hands a request back, says nothing to the caller
			err = i.frame(f)
		}
		if f.Kind == schemas.KindEnd && err == nil {
			err = i.finish()
		}
		if f.Kind == schemas.KindEnd || err != nil {
			return f.Kind == schemas.KindEnd, err
		}
	}
	return false, errEnded
}

// beat sends a sign of life after each silence until rest is called. The first comes when HTTP would send its status. A
// caller that waits for one response takes the first message for it, and so gets no sign unless it asks for them.
func (i *inbox) beat(held func(), signs bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.armed.Add(1)
	i.timer = time.AfterFunc(i.s.cfg.HoldStatus-time.Since(i.began), func() {
		defer i.armed.Done()
		if held != nil {
			held()
		}
		if signs {
			i.tick()
		}
	})
}

func (i *inbox) tick() {
	var waiting *schemas.Waiting
	if i.due() {
		waiting = i.waiting()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	silent := time.Since(i.wrote)
	if silent >= i.s.cfg.Heartbeat {
		silent = 0
		delete(i.header, schemas.HeaderFrame)
		tellWaiting(i.header, waiting)
		err := i.send([]byte(sign))
		tellWaiting(i.header, nil)
		if err != nil {
			i.leave(err)
			return
		}
	}
	i.armed.Add(1)
	i.timer.Reset(i.s.cfg.Heartbeat - silent)
}

// due reports whether a sign is, for a request that may still wait.
func (i *inbox) due() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.closed && !i.running && i.status < 400 && time.Since(i.wrote) >= i.s.cfg.Heartbeat
}

// begun notes that a worker has begun, so that the request waits no more.
func (i *inbox) begun() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running = true
}

// rest returns when no more signs will be sent.
func (i *inbox) rest() {
	i.mu.Lock()
	i.closed = true
	if i.timer.Stop() {
		i.armed.Done()
	}
	i.mu.Unlock()
	i.armed.Wait()
}
