package bus

import (
	"context"
	"net"

	"github.com/nats-io/nats.go"
)

// What tests need to see of a requester, an acker and a gathering connection.
const (
	KeptSlots  = keptSlots
	SlotBuffer = slotBuffer
	AckBatch   = ackBatch

	GatherBytes     = gatherBytes
	KeptGatherBytes = keptGatherBytes
	GatherTimeout   = gatherTimeout
	GatherClosing   = gatherClosing
)

func NewGatherConn(conn net.Conn) net.Conn { return newGatherConn(conn) }

// HeldByGatherConn is the memory that a connection with nothing to send holds.
func HeldByGatherConn(conn net.Conn) int {
	g := conn.(*gatherConn)
	return cap(g.waiting) + cap(g.leaving)
}

func (b *Bus) Request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	return b.control.request(ctx, msg)
}

// Slots is how many slots were made, and how many wait for nothing.
func (b *Bus) Slots() (made, free int) {
	b.control.mu.Lock()
	defer b.control.mu.Unlock()
	return b.control.slots, len(b.control.free)
}

// TakeSlot takes a slot as a request does, until give is called.
func (b *Bus) TakeSlot() (give func(), err error) {
	s, _, err := b.control.take()
	return func() { b.control.give(s) }, err
}

func (b *Bus) Conn() *nats.Conn { return b.control.Conn }

func (b *Bus) Acknowledge(reply string) { b.acks.ack(reply) }

func (b *Bus) FlushAcks() { b.acks.flush() }

// ReadDelivery reads a message as a puller does.
func ReadDelivery(msg *nats.Msg) (*Delivery, error) { return newDelivery(&acker{}, 0, msg) }
