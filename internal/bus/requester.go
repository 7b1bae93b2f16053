package bus

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// keptSlots is how many idle slots a requester keeps, each of which is a subscription.
	keptSlots = 256
	// slotBuffer is how many late answers to earlier requests a slot holds beside the one it waits for.
	slotBuffer = 8
)

// requester is a connection that sends messages and waits for their answers. It is [nats.Conn.RequestMsg] without the goroutine, the channel
// and the map entry for each request: there is one for every frame. It is safe for concurrent use.
type requester struct {
	*nats.Conn

	mu    sync.Mutex
	inbox string
	slots int           // made so far
	free  []*slot       // those that wait for nothing
	lost  chan struct{} // closed when the connection is lost
}

// slot waits for one answer at a time. An answer says in its subject which request it is for, so that a late or a second
// answer is never taken for another's.
type slot struct {
	sub    *nats.Subscription
	in     chan *nats.Msg
	prefix string
	number uint64 // of the last request
	timer  *time.Timer
}

// request sends a message and waits for the answer, at most tryTimeout. It takes over msg.Reply. An error leaves it open
// whether the message arrived, unless it is hopeless.
func (r *requester) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	s, lost, err := r.take()
	if err != nil {
		return nil, err
	}
	defer r.give(s)
	s.number++
	number := strconv.FormatUint(s.number, 10)
	msg.Reply = s.prefix + number
	if err := r.PublishMsg(msg); err != nil {
		return nil, err
	}
	s.timer.Reset(tryTimeout)
	defer s.timer.Stop()
	for {
		select {
		case reply := <-s.in:
			if !strings.HasPrefix(reply.Subject, s.prefix) || reply.Subject[len(s.prefix):] != number {
				continue
			}
			if len(reply.Data) == 0 && header(reply.Header, "Status") == "503" {
				return nil, nats.ErrNoResponders
			}
			return reply, nil
		case <-s.timer.C:
			return nil, nats.ErrTimeout
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-lost:
			return nil, nats.ErrDisconnected
		}
	}
}

// take gives a slot and a channel that is closed when the connection is lost.
func (r *requester) take() (*slot, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.free) - 1; last >= 0 {
		s := r.free[last]
		r.free = r.free[:last]
		return s, r.lost, nil
	}
	r.slots++
	s := &slot{in: make(chan *nats.Msg, slotBuffer), prefix: r.inbox + "." + strconv.Itoa(r.slots) + ".", timer: time.NewTimer(tryTimeout)}
	s.timer.Stop()
	var err error
	s.sub, err = r.ChanSubscribe(s.prefix+"*", s.in)
	return s, r.lost, err
}

func (r *requester) give(s *slot) {
	for len(s.in) > 0 {
		<-s.in // late answers must not crowd out the next request's
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) < keptSlots {
		r.free = append(r.free, s)
		return
	}
	_ = s.sub.Unsubscribe() // of a closed connection there is nothing to end
}

// disconnected ends the requests under way: their answers went to the connection that is gone.
func (r *requester) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.lost)
	r.lost = make(chan struct{})
}
