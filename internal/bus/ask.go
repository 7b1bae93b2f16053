package bus

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/weir-llm/weir/schemas"
)

const (
	// probeInterval is how often the server is asked, with a message of the answer, whether anybody listens to it.
	probeInterval = time.Second
	// headerRoom is what the headers of an answer's message may need of the largest message.
	headerRoom = 4 << 10
	// reconnectWait is between two tries to send while there is no connection.
	reconnectWait = 20 * time.Millisecond
	statusHeader  = "Status"
	noResponders  = "503"
)

// ErrGap says that the connection was lost during an answer, and messages of it with the connection. Sending may go on, with
// word of it to the caller.
var ErrGap = errors.New("messages of the answer may be lost")

// Ask is a request that came to an endpoint, and the way back to its caller. It belongs to one goroutine at a time.
type Ask struct {
	Subject string
	Reply   string // where the answer goes; empty when none is wanted
	Header  schemas.Header
	Data    []byte
	Edge    bool // it came from account EDGE: from a tenant, whom the permissions hold to the subjects of its own

	door    *serviceDoor
	request micro.Request
	lives   uint64 // of the connection, when the last message was sent
	sent    bool
	probe   string // where the server says that nobody listens; empty before Watch
	probed  time.Time
}

// Refuse answers with an error, as a whole answer, within the endpoint's handler, where the framework counts it.
func (a *Ask) Refuse(code, description string, h schemas.Header, data []byte) error {
	if err := a.request.Error(code, description, data, micro.WithHeaders(micro.Headers(h))); err != nil {
		return err
	}
	return a.request.Respond(nil)
}

// MaxData is the largest payload that one message of the answer can have.
func (a *Ask) MaxData() int {
	largest := int(a.door.conn.MaxPayload())
	return max(largest-headerRoom, largest/2)
}

// Send sends one message of the answer. It waits so long while the connection is being restored, and then returns [ErrGap]
// once instead of sending. The header may be used again after it has returned.
func (a *Ask) Send(ctx context.Context, wait time.Duration, h schemas.Header, data []byte) error {
	msg := &nats.Msg{Subject: a.Reply, Header: nats.Header(h), Data: data}
	now := time.Now()
	if a.probe != "" && now.Sub(a.probed) >= probeInterval {
		a.probed, msg.Reply = now, a.probe
	}
	for {
		if lives := a.door.lives(); lives != a.lives {
			a.lives = lives
			if a.sent {
				return ErrGap
			}
		}
		err := a.door.conn.PublishMsg(msg)
		a.sent = true
		if err == nil || !errors.Is(err, nats.ErrReconnectBufExceeded) || time.Since(now) > wait {
			return wrap("answer on "+a.Reply, err)
		}
		if err := sleep(ctx, reconnectWait); err != nil {
			return err
		}
	}
}

// End sends the empty message that ends the answer, once all of it has got to the server: a caller takes what it has for
// whole when it sees the end, so an end must not arrive where something before it was lost. It waits for as long as Send,
// and returns [ErrGap] instead when it cannot know.
func (a *Ask) End(ctx context.Context, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := a.door.conn.FlushWithContext(waiting); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.lives = a.door.lives()
		return ErrGap
	}
	return a.Send(ctx, wait, nil, nil)
}

// Watch calls left when the server says that nobody listens to the answer. It is told only when something is sent, and not
// always when the caller is at another server of a cluster. The caller of Watch must stop it.
func (a *Ask) Watch(left func()) (stop func()) {
	d := a.door
	token := strconv.FormatUint(d.next.Add(1), 36)
	d.mu.Lock()
	d.callers[token] = left
	d.mu.Unlock()
	a.probe = d.probes + "." + token
	return func() {
		d.mu.Lock()
		delete(d.callers, token)
		d.mu.Unlock()
	}
}

// probed takes what comes back from probes. Callers may answer what they get; only the server's own word counts.
func (d *serviceDoor) probed(msg *nats.Msg) {
	if len(msg.Data) > 0 || header(msg.Header, statusHeader) != noResponders {
		return
	}
	token := msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:]
	d.mu.Lock()
	left := d.callers[token]
	d.mu.Unlock()
	if left != nil {
		left()
	}
}
