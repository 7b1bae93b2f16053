package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// A pull is short-lived, because a stopped process swallows what arrives for its open pulls (docs/adr/0004).
const (
	pullExpiry    = 2 * time.Second
	pullHeartbeat = 500 * time.Millisecond
	maxPull       = 512
)

// Puller takes deliveries from a durable consumer, never more than were asked for. It is owned by one goroutine.
type Puller struct {
	bus              *Bus
	stream, consumer string
	group            string // of a pinned consumer
	pin              string // proof of being the pinned client
	unpinned         bool   // the pin was lost since the last Fetch

	sub   *nats.Subscription
	in    chan *nats.Msg
	inbox string
	timer *time.Timer // of the pull that is waited for

	number  uint64 // of the last pull
	pulls   map[uint64]*pull
	backoff time.Duration
}

// pull is a request for messages that the server has not yet used up.
type pull struct {
	pin    string
	left   int
	expiry time.Time
	sign   time.Time // when the server last said something about it
}

// Requests takes requests of a partition of LLM_REQUESTS. Of all pullers of a partition, the server serves one.
func (b *Bus) Requests(partition int) *Puller {
	return b.puller(schemas.StreamRequests, schemas.RouterConsumer(partition), schemas.RouterGroup)
}

// Work takes work items of an encoded model.
func (b *Bus) Work(modelToken string) *Puller {
	return b.puller(schemas.StreamWork, schemas.WorkConsumer(modelToken), "")
}

// Results takes results for the sink.
func (b *Bus) Results() *Puller { return b.puller(schemas.StreamResults, schemas.ConsumerSink, "") }

func (b *Bus) puller(stream, consumer, group string) *Puller {
	return &Puller{bus: b, stream: stream, consumer: consumer, group: group, pulls: map[uint64]*pull{}}
}

// Fetch blocks for at least one delivery and returns what is there, at most want (itself at most 512). It returns the
// cause of ctx when ctx ends, and [ErrUnpinned] once when another puller has become the one that is served. While it
// blocks, up to want messages may be under way to this process.
func (p *Puller) Fetch(ctx context.Context, want int) ([]*Delivery, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	want = min(want, maxPull)
	for {
		if p.unpinned {
			p.unpinned = false
			return nil, ErrUnpinned
		}
		if err := p.pull(ctx, want); err != nil {
			return nil, err
		}
		batch, err := p.receive(ctx, want)
		if len(batch) > 0 || err != nil {
			return batch, err
		}
	}
}

// Pin is the proof that the server serves this puller of all, or empty.
func (p *Puller) Pin() string { return p.pin }

// Keep keeps the pin while nothing is fetched. It asks for a message of one byte, which there is not: the server has then
// heard from the holder of the pin and delivers nothing.
func (p *Puller) Keep() {
	if p.pin == "" {
		return
	}
	body := fmt.Appendf(nil, `{"batch":1,"no_wait":true,"max_bytes":1,"group":%q,"id":%q}`, p.group, p.pin)
	_ = p.bus.control.PublishRequest(p.nextSubject(), p.inbox+keepReply, body)
}

// keepReply ends the reply subject of [Puller.Keep]; pulls are numbered from 1.
const keepReply = ".0"

func (p *Puller) nextSubject() string {
	return "$JS.API.CONSUMER.MSG.NEXT." + p.stream + "." + p.consumer
}

func (p *Puller) open() error {
	if p.sub != nil {
		return nil
	}
	p.inbox = p.bus.control.NewInbox()
	p.in = make(chan *nats.Msg, 3*maxPull)
	p.timer = time.NewTimer(pullHeartbeat)
	sub, err := p.bus.control.ChanSubscribe(p.inbox+".*", p.in)
	if err != nil {
		return fmt.Errorf("open a pull of %s: %w", p.consumer, err)
	}
	p.sub = sub
	return nil
}

// pull asks for what is wanted beyond what open pulls already ask for, once that is half of it: a pull for each message
// would cost as much as the message.
func (p *Puller) pull(ctx context.Context, want int) error {
	now, enough := time.Now(), want/2
	for number, open := range p.pulls {
		if open.left <= 0 || now.After(open.expiry) || now.Sub(open.sign) > 2*pullHeartbeat+pullHeartbeat/2 {
			delete(p.pulls, number)
			continue
		}
		want -= open.left
		enough -= open.left
	}
	if want <= 0 || enough < 0 {
		return nil
	}
	if p.backoff > 0 {
		if err := sleep(ctx, p.backoff); err != nil {
			return err
		}
		now = time.Now()
	}
	p.number++
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
		Group     string        `json:"group,omitempty"`
		Pin       string        `json:"id,omitempty"`
	}{want, pullExpiry, pullHeartbeat, p.group, p.pin})
	if err != nil {
		return err
	}
	reply := p.inbox + "." + strconv.FormatUint(p.number, 10)
	if err := p.bus.control.PublishRequest(p.nextSubject(), reply, body); err != nil {
		// Not connected: the client re-establishes the connection by itself.
		return sleep(ctx, 250*time.Millisecond)
	}
	p.pulls[p.number] = &pull{pin: p.pin, left: want, expiry: now.Add(pullExpiry + pullHeartbeat), sign: now}
	return nil
}

// receive waits for a first message or for a reason to pull again, then takes what else has arrived.
func (p *Puller) receive(ctx context.Context, want int) (batch []*Delivery, err error) {
	p.timer.Reset(pullHeartbeat)
	defer p.timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-p.timer.C:
		return nil, nil
	case msg := <-p.in:
		batch = p.take(batch, msg)
	}
	for len(batch) < want {
		select {
		case msg := <-p.in:
			batch = p.take(batch, msg)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// take adds a message to the batch, or learns from a status.
func (p *Puller) take(batch []*Delivery, msg *nats.Msg) []*Delivery {
	// A publisher may set any header, so only the reply subject tells a delivery from a status.
	if !strings.HasPrefix(msg.Reply, "$JS.ACK.") {
		p.status(msg, header(msg.Header, "Status"))
		return batch
	}
	d, err := newDelivery(p.bus.acks, p.bus.cfg.Lease, msg)
	if err != nil {
		p.bus.log.Warn("a message that is no delivery was dropped", "consumer", p.consumer, "error", err)
		return batch
	}
	p.backoff = 0
	p.used()
	if pin := header(msg.Header, "Nats-Pin-Id"); pin != "" {
		p.pin = pin
	}
	if d.Delivered > 1 {
		p.bus.meters.redelivered.WithLabelValues(p.stream).Inc()
	}
	return append(batch, d)
}

// used counts a message against the oldest open pull, which the server serves first.
func (p *Puller) used() {
	var oldest uint64
	for number, open := range p.pulls {
		if open.left > 0 && (oldest == 0 || number < oldest) {
			oldest = number
		}
	}
	if open := p.pulls[oldest]; open != nil {
		open.left--
		open.sign = time.Now() // the server sends no heartbeat to a pull that it has served within one
	}
}

// status is a message of the server about a pull.
func (p *Puller) status(msg *nats.Msg, status string) {
	number, _ := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 10, 64)
	if number == 0 && status != "423" {
		return // of Keep
	}
	switch status {
	case "100": // it lives
		if open := p.pulls[number]; open != nil {
			open.sign = time.Now()
		}
		p.backoff = 0
		return
	case "423": // another client is pinned now
		if open := p.pulls[number]; open != nil && open.pin != p.pin {
			break // it was sent with a pin of before
		}
		p.unpinned = p.unpinned || p.pin != ""
		p.pin = ""
	case "408", "404": // expired
		p.backoff = 0
	default: // no responders, consumer or server gone, leader changed
		p.backoff = min(max(2*p.backoff, 50*time.Millisecond), time.Second)
	}
	delete(p.pulls, number)
}

// Undelivered is how many messages the server has that it has sent to no puller yet.
func (p *Puller) Undelivered(ctx context.Context) (uint64, error) {
	info, err := p.bus.consumerInfo(ctx, p.stream, p.consumer)
	if err != nil {
		return 0, err
	}
	return info.NumPending, nil
}

// Close gives back what was on its way, so that it need not wait for its lease, and the pin, so that the next puller need
// not wait for it to lapse. It blocks for a few seconds at most.
func (p *Puller) Close() {
	if p.sub == nil {
		return
	}
	if err := p.sub.Drain(); err != nil {
		return // the connection is gone, and with it the pulls
	}
	flushed := p.bus.control.FlushTimeout(2 * time.Second)
	p.giveBack()
	if p.pin == "" || flushed != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	if err := p.bus.unpin(ctx, p.stream, p.consumer, p.group, p.pin); err != nil {
		p.bus.log.Warn("a pin was not given back; it lapses by itself", "consumer", p.consumer, "error", err)
	}
}

func (p *Puller) giveBack() {
	for {
		select {
		case msg, ok := <-p.in:
			if !ok {
				return
			}
			for _, d := range p.take(nil, msg) {
				d.Settle(Nak)
			}
		default:
			return
		}
	}
}

func header(h nats.Header, key string) string {
	if values := h[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}
