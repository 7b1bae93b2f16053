package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
)

// asking is a bus, and a connection for whoever answers it.
func asking(t *testing.T) (*bus.Bus, *nats.Conn) {
	t.Helper()
	server := bustest.Server(t)
	other, err := nats.Connect(server.ClientURL(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	return bustest.Connect(t, server, bus.Config{}), other
}

// answering subscribes to a subject and returns once the server knows.
func answering(t *testing.T, conn *nats.Conn, subject string, fn nats.MsgHandler) {
	t.Helper()
	if _, err := conn.Subscribe(subject, fn); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestEachRequestGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	b, other := asking(t)
	answering(t, other, "echo", func(msg *nats.Msg) {
		for range bus.SlotBuffer / 2 { // the second and later answers come when the slot waits for something else
			_ = msg.Respond(msg.Data)
		}
	})
	before, _ := b.Slots()
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d/%d", i, j)
				reply, err := b.Request(t.Context(), &nats.Msg{Subject: "echo", Data: []byte(want)})
				if err != nil || string(reply.Data) != want {
					t.Errorf("request %s: %v, %v", want, reply, err)
					return
				}
			}
		})
	}
	running.Wait()
	if made, free := b.Slots(); made > 16+before || free != made {
		t.Errorf("16 requests at a time made %d slots, of which %d are free", made-before, free)
	}
}

func TestAnswerThatComesTooLateIsNobodys(t *testing.T) {
	t.Parallel()
	b, other := asking(t)
	var late *nats.Msg
	before, _ := b.Slots()
	ctx, cancel := context.WithCancel(t.Context())
	answering(t, other, "ask", func(msg *nats.Msg) {
		if string(msg.Data) == "first" {
			late = msg
			cancel()
			return
		}
		_ = late.Respond([]byte("to the first"))
		_ = msg.Respond([]byte("to the second"))
	})
	if _, err := b.Request(ctx, &nats.Msg{Subject: "ask", Data: []byte("first")}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	reply, err := b.Request(t.Context(), &nats.Msg{Subject: "ask", Data: []byte("second")})
	if err != nil || string(reply.Data) != "to the second" {
		t.Errorf("%v, %v", reply, err)
	}
	if made, free := b.Slots(); made != max(before, 1) || free != made {
		t.Errorf("%d slots for requests that followed each other, of which %d are free", made, free)
	}
}

func TestRequestEndsWhenNobodyCanAnswer(t *testing.T) {
	t.Parallel()
	b, other := asking(t)
	if _, err := b.Request(t.Context(), &nats.Msg{Subject: "nobody"}); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a subject without subscribers: %v", err)
	}
	arrived := make(chan struct{})
	answering(t, other, "silent", func(*nats.Msg) { close(arrived) })
	ended := make(chan error)
	go func() {
		_, err := b.Request(t.Context(), &nats.Msg{Subject: "silent"})
		ended <- err
	}()
	<-arrived
	if err := b.Conn().ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("a connection that was lost: %v", err)
	}
}

// Without a message: so many answers at once may take a busy machine longer than a request waits.
func TestRequesterKeepsABoundedNumberOfSlots(t *testing.T) {
	t.Parallel()
	b, _ := asking(t)
	subscriptions := b.Conn().NumSubscriptions()
	_, before := b.Slots()
	var taken []func()
	for range bus.KeptSlots + 10 {
		give, err := b.TakeSlot()
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, give)
	}
	for _, give := range taken {
		give()
	}
	_, free := b.Slots()
	if more := b.Conn().NumSubscriptions() - subscriptions + before; free != bus.KeptSlots || more != bus.KeptSlots {
		t.Errorf("%d slots are kept with %d subscriptions; want %d", free, more, bus.KeptSlots)
	}
}
