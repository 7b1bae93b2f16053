package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/natsd"
)

// requesterOn connects a requester, and a connection for whoever answers it, to a server of the test.
func requesterOn(t *testing.T) (*requester, *nats.Conn) {
	t.Helper()
	server, err := natsd.New(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	b, err := Connect(t.Context(), Config{URL: server.ClientURL(), Name: "weir-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	other, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	return b.control, other
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
	r, other := requesterOn(t)
	answering(t, other, "echo", func(msg *nats.Msg) {
		for range slotBuffer / 2 { // the second and later answers come when the slot waits for something else
			_ = msg.Respond(msg.Data)
		}
	})
	var asking sync.WaitGroup
	for i := range 16 {
		asking.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d/%d", i, j)
				reply, err := r.request(t.Context(), &nats.Msg{Subject: "echo", Data: []byte(want)})
				if err != nil || string(reply.Data) != want {
					t.Errorf("request %s: %v, %v", want, reply, err)
					return
				}
			}
		})
	}
	asking.Wait()
	if r.slots > 16 {
		t.Errorf("16 requests at a time took %d slots", r.slots)
	}
}

func TestAnswerThatComesTooLateIsNobodys(t *testing.T) {
	t.Parallel()
	r, other := requesterOn(t)
	var late *nats.Msg
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
	if _, err := r.request(ctx, &nats.Msg{Subject: "ask", Data: []byte("first")}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	reply, err := r.request(t.Context(), &nats.Msg{Subject: "ask", Data: []byte("second")})
	if err != nil || string(reply.Data) != "to the second" {
		t.Errorf("%v, %v", reply, err)
	}
	if r.slots != 1 {
		t.Errorf("%d slots for requests that followed each other", r.slots)
	}
}

func TestRequestEndsWhenNobodyCanAnswer(t *testing.T) {
	t.Parallel()
	r, other := requesterOn(t)
	if _, err := r.request(t.Context(), &nats.Msg{Subject: "nobody"}); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a subject without subscribers: %v", err)
	}
	arrived := make(chan struct{})
	answering(t, other, "silent", func(*nats.Msg) { close(arrived) })
	ended := make(chan error)
	go func() {
		_, err := r.request(t.Context(), &nats.Msg{Subject: "silent"})
		ended <- err
	}()
	<-arrived
	if err := r.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("a connection that was lost: %v", err)
	}
}

func TestRequesterKeepsABoundedNumberOfSlots(t *testing.T) {
	t.Parallel()
	r, other := requesterOn(t)
	const many = keptSlots + 10
	var waiting sync.WaitGroup
	waiting.Add(many)
	answering(t, other, "all", func(msg *nats.Msg) {
		go func() { // answers when all are there
			waiting.Done()
			waiting.Wait()
			_ = msg.Respond([]byte("ok"))
		}()
	})
	var asking sync.WaitGroup
	for range many {
		asking.Go(func() {
			if _, err := r.request(t.Context(), &nats.Msg{Subject: "all"}); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if len(r.free) != keptSlots || r.NumSubscriptions() != keptSlots {
		t.Errorf("%d slots are kept with %d subscriptions; want %d", len(r.free), r.NumSubscriptions(), keptSlots)
	}
}
