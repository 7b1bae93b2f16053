package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
)

func TestAcknowledgementsLeaveLateButSurely(t *testing.T) {
	t.Parallel()
	b, other := asking(t)
	got := make(chan string, 2*bus.AckBatch)
	answering(t, other, "acks.*", func(msg *nats.Msg) { got <- msg.Subject })
	next := func() string {
		select {
		case subject := <-got:
			return subject
		case <-time.After(patience):
			t.Fatal("an acknowledgement was not sent")
			return ""
		}
	}
	b.Acknowledge("acks.one") // after the delay, by itself
	if subject := next(); subject != "acks.one" {
		t.Errorf("%s was acknowledged", subject)
	}

	for i := range bus.AckBatch + 1 { // a full batch at once, the last when it is flushed
		b.Acknowledge(fmt.Sprintf("acks.%d", i))
	}
	b.FlushAcks()
	for i := range bus.AckBatch + 1 {
		if subject, want := next(), fmt.Sprintf("acks.%d", i); subject != want {
			t.Errorf("%s was acknowledged in the place of %s", subject, want)
		}
	}
}
