package bus

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// Outcome is what becomes of a delivery.
type Outcome int

// The outcomes.
const (
	Silent Outcome = iota // nothing is said: the delivery comes back after the lease
	Ack                   // done: it never comes back
	Nak                   // not done: it comes back at once, here or elsewhere
	Term                  // it can never be done: it never comes back
)

var outcomeVerbs = map[Outcome][]byte{Ack: []byte("+ACK"), Nak: []byte("-NAK"), Term: []byte("+TERM")}

var progress = []byte("+WPI")

// Delivery is a message that was handed to this process for the length of a lease. Extend, Hold and Settle are safe for
// concurrent use; the bytes belong to the receiver.
type Delivery struct {
	Subject   string
	Header    schemas.Header
	Data      []byte
	Stream    string
	Sequence  uint64    // in its stream
	Order     uint64    // in what its consumer delivered, from 1
	Delivered int       // 1 for the first time
	Pending   uint64    // messages behind it, without those that the server has only just stored
	Time      time.Time // when the stream stored it, by the server's clock

	conn  *nats.Conn
	acks  *acker
	reply string
	lease time.Duration
	once  sync.Once
}

// Extend renews the lease. It does not block.
func (d *Delivery) Extend() {
	// A lost extension costs a redelivery, which is harmless; a broken connection reports itself.
	_ = d.conn.Publish(d.reply, progress)
}

// Hold renews the lease three times a lease until release is called or ctx ends. The function that owns the work calls
// it and defers release, so that the lease ends with the work.
func (d *Delivery) Hold(ctx context.Context) (release func()) {
	h := &holder{d: d, ctx: ctx}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(d.lease/3, h.extend) // no goroutine, since there is one of these for every delivery
	return h.release
}

// holder extends a delivery until it is released.
type holder struct {
	d   *Delivery
	ctx context.Context

	mu       sync.Mutex
	timer    *time.Timer
	released bool
}

func (h *holder) extend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released || h.ctx.Err() != nil {
		return
	}
	h.d.Extend()
	h.timer.Reset(h.d.lease / 3)
}

func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	h.timer.Stop()
}

// Settle carries out the outcome; only the first call counts. It does not wait for the server, and an acknowledgement leaves
// a few milliseconds later, together with others: one that is lost costs a redelivery.
func (d *Delivery) Settle(o Outcome) {
	d.once.Do(func() {
		if o == Ack {
			d.acks.ack(d.reply)
		} else if verb := outcomeVerbs[o]; verb != nil {
			_ = d.conn.Publish(d.reply, verb)
		}
	})
}

// newDelivery reads the metadata that JetStream puts in the reply subject, in its first form
// ($JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>) or the second, which has the
// domain and the account hash after $JS.ACK.
func newDelivery(acks *acker, lease time.Duration, msg *nats.Msg) (*Delivery, error) {
	rest, ours := strings.CutPrefix(msg.Reply, "$JS.ACK.")
	next := func() (token string) {
		token, rest, _ = strings.Cut(rest, ".")
		return token
	}
	if strings.Count(rest, ".") >= 8 {
		next() // the domain
		next() // the account hash
	}
	if !ours || strings.Count(rest, ".") < 6 {
		return nil, fmt.Errorf("message on %s carries no delivery metadata", msg.Subject)
	}
	stream := next()
	next() // the consumer
	var numbers [5]uint64
	for i := range numbers {
		n, err := strconv.ParseUint(next(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("delivery metadata %q: %w", msg.Reply, err)
		}
		numbers[i] = n
	}
	return &Delivery{
		Subject: msg.Subject, Header: msg.Header, Data: msg.Data, Stream: stream,
		Delivered: int(numbers[0]), Sequence: numbers[1], Order: numbers[2], Time: time.Unix(0, int64(numbers[3])), Pending: numbers[4],
		conn: acks.conn, acks: acks, reply: msg.Reply, lease: lease,
	}, nil
}
