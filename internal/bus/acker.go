package bus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// ackDelay is how long an acknowledgement waits for others. A work queue that is never quite empty under load saves the
	// server from making a new file for each message, and acknowledgements that leave together cost one write.
	ackDelay = 5 * time.Millisecond
	// ackBatch is how many wait at most.
	ackBatch = 256
)

// acker sends acknowledgements together, a little late. One that is lost with the process costs a redelivery, which is
// harmless. It is safe for concurrent use.
type acker struct {
	conn *nats.Conn

	mu      sync.Mutex
	waiting []string // reply subjects
	timer   *time.Timer
}

func newAcker(conn *nats.Conn) *acker {
	a := &acker{conn: conn}
	a.mu.Lock() // the timer may fire before it is stored
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(ackDelay, a.flush)
	return a
}

func (a *acker) ack(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, reply)
	switch len(a.waiting) {
	case 1:
		a.timer.Reset(ackDelay)
	case ackBatch:
		a.send()
	}
}

// flush sends what waits.
func (a *acker) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send()
}

func (a *acker) send() {
	a.timer.Stop()
	for _, reply := range a.waiting {
		_ = a.conn.Publish(reply, outcomeVerbs[Ack])
	}
	clear(a.waiting)
	a.waiting = a.waiting[:0]
}
