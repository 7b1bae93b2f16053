package client_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// repeat is a pipeline in which nobody works, and a request of which there is no frame.
type repeat struct {
	t        *testing.T
	ctx      context.Context
	bus      *bus.Bus
	conn     *nats.Conn
	client   *client.Client
	identity schemas.Identity

	same, other client.Request
}

func newRepeat(t *testing.T) *repeat {
	t.Helper()
	server := bustest.Server(t)
	r := &repeat{
		t: t, conn: bustest.Trusted(t, server), bus: bustest.Connect(t, server, bus.Config{}), identity: schemas.Identity{Tenant: "acme", Request: "job-1"},
		same: words(`"stream":true,"words":["a"]`), other: words(`"stream":true,"words":["other"]`),
	}
	r.same.ID, r.other.ID = "job-1", "job-1"
	r.client, r.ctx = ways()[0].connect(t, server.ClientURL())
	if _, err := r.bus.Accept(t.Context(), &schemas.Request{Identity: r.identity, ModelToken: "echo", Body: r.same.Body}); err != nil {
		t.Fatal(err)
	}
	return r
}

// take takes the request from the queue, as a router does, and returns what sees each request that is sent from then on.
func (r *repeat) take() (sent *nats.Subscription) {
	r.t.Helper()
	puller := r.bus.Requests(schemas.PartitionOf("acme"))
	defer puller.Close()
	batch, err := puller.Fetch(r.ctx, 1)
	if err != nil {
		r.t.Fatal(err)
	}
	batch[0].Settle(bus.Ack)
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		got, err := r.bus.Accept(r.ctx, &schemas.Request{Identity: r.identity, ModelToken: "echo", Body: r.same.Body})
		if err == nil && !got.Waits {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the request waits still: %+v, %v", got, err)
		}
	}
	if sent, err = r.conn.SubscribeSync(schemas.RequestsAll); err == nil {
		err = r.conn.Flush()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return sent
}

// run answers it, as a worker does.
func (r *repeat) run() {
	r.t.Helper()
	p := pipeline{bus: r.bus}
	o := order{Words: []string{"a"}, Stream: true}
	for _, f := range o.frames(&schemas.Request{Identity: r.identity}, schemas.BodyHash(r.same.Body)) {
		if err := p.append(r.ctx, r.identity, f); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestSendOfAnIDThatWaitsWithAnotherBody(t *testing.T) {
	t.Parallel()
	r := newRepeat(t)
	if _, err := r.client.Send(r.ctx, r.other); code(err) != schemas.CodeIdempotencyMismatch {
		t.Errorf("send of another body: %v", err)
	}
	if _, err := read(r.client.Stream(r.ctx, r.other)); code(err) != schemas.CodeIdempotencyMismatch {
		t.Errorf("stream of another body: %v", err)
	}
	embedding := r.same
	embedding.Op = schemas.OpEmbedding
	if _, err := r.client.Send(r.ctx, embedding); code(err) != schemas.CodeIdempotencyMismatch {
		t.Errorf("send for another operation: %v", err)
	}
	if chain, err := r.bus.Chain(r.ctx, r.identity); err != nil || len(chain.Frames) > 0 {
		t.Fatalf("%d frames, %v", len(chain.Frames), err)
	}
	if _, err := r.client.Send(r.ctx, r.same); err != nil {
		t.Errorf("send of the same body: %v", err)
	}
	chain, err := r.bus.Chain(r.ctx, r.identity)
	if err != nil || len(chain.Frames) != 1 || chain.BodyHash() != schemas.BodyHash(r.same.Body) {
		t.Errorf("it cannot be found: %d frames, %v", len(chain.Frames), err)
	}
	if _, err := r.client.Send(r.ctx, embedding); code(err) != schemas.CodeIdempotencyMismatch {
		t.Errorf("send for another operation, once it can be found: %v", err)
	}
}

// A request that was taken up, and of which there is no frame yet, is nobody else's answer.
func TestSendOfAnIDThatWasTakenUpWithAnotherBody(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(r *repeat, request client.Request) ([]string, error){
		"send": func(r *repeat, request client.Request) ([]string, error) {
			_, err := r.client.Send(r.ctx, request)
			return nil, err
		},
		"stream": func(r *repeat, request client.Request) ([]string, error) {
			return read(r.client.Stream(r.ctx, request))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepeat(t)
			sent := r.take()
			type outcome struct {
				events []string
				err    error
			}
			same, other := make(chan outcome, 1), make(chan outcome, 1)
			for request, to := range map[*client.Request]chan outcome{&r.same: same, &r.other: other} {
				go func() { events, err := call(r, *request); to <- outcome{events, err} }()
			}
			for range 2 {
				if _, err := sent.NextMsg(patience); err != nil {
					t.Fatal(err)
				}
			}
			r.run()
			if got := <-other; code(got.err) != schemas.CodeIdempotencyMismatch || len(got.events) > 0 {
				t.Errorf("another body: %v, %v", got.events, got.err)
			}
			if got := <-same; got.err != nil || name == "stream" && len(got.events) != 1 {
				t.Errorf("the same body: %v, %v", got.events, got.err)
			}
		})
	}
}

// One that ended without a word about its body was what was sent, as far as anybody knows.
func TestSendOfAnIDThatWasCancelledInTheQueue(t *testing.T) {
	t.Parallel()
	r := newRepeat(t)
	sent, done := r.take(), make(chan error, 1)
	go func() { _, err := r.client.Send(r.ctx, r.same); done <- err }()
	if _, err := sent.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	if err := r.bus.CancelRequest(r.ctx, r.identity, schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Whoever stored the request may be about to cancel it because its caller has left.
func TestStreamOfARepeatIsAnnounced(t *testing.T) {
	t.Parallel()
	r := newRepeat(t)
	heard := make(chan schemas.Identity, 1)
	stop, err := r.bus.OnAttach(func(id schemas.Identity) { heard <- id })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, leave := context.WithCancel(r.ctx)
	defer leave()
	reading.Go(func() { _, _ = read(r.client.Stream(ctx, r.same)) })
	select {
	case id := <-heard:
		if id != r.identity {
			t.Errorf("%s is announced", id)
		}
	case <-time.After(patience / 2): // before it would be by and by
		t.Error("nothing is announced")
	}
}
