package bus

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestAcknowledgementsLeaveLateButSurely(t *testing.T) {
	t.Parallel()
	r, other := requesterOn(t)
	got := make(chan string, 2*ackBatch)
	answering(t, other, "acks.*", func(msg *nats.Msg) { got <- msg.Subject })
	next := func() string {
		select {
		case subject := <-got:
			return subject
		case <-time.After(20 * time.Second):
			t.Fatal("an acknowledgement was not sent")
			return ""
		}
	}
	a := newAcker(r.Conn)

	a.ack("acks.one") // after the delay, by itself
	if subject := next(); subject != "acks.one" {
		t.Errorf("%s was acknowledged", subject)
	}

	for i := range ackBatch + 1 { // a full batch at once, the last when it is flushed
		a.ack(fmt.Sprintf("acks.%d", i))
	}
	a.flush()
	for i := range ackBatch + 1 {
		if subject, want := next(), fmt.Sprintf("acks.%d", i); subject != want {
			t.Errorf("%s was acknowledged in the place of %s", subject, want)
		}
	}
	if len(a.waiting) != 0 {
		t.Errorf("%d acknowledgements still wait", len(a.waiting))
	}
}
