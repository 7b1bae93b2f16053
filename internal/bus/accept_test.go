package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

func TestAcceptStoresARequestOnce(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	first, err := b.Accept(t.Context(), request("r-1"))
	if err != nil || first.Duplicate || first.Sequence < uint64(time.Now().Add(-time.Hour).UnixMilli()) {
		t.Fatalf("%+v, error %v", first, err)
	}
	again, err := b.Accept(t.Context(), request("r-1"))
	if err != nil || !again.Duplicate || again.Sequence != first.Sequence {
		t.Errorf("the same id: %+v, error %v", again, err)
	}
	other := request("r-1")
	other.Tenant = "other"
	if got, err := b.Accept(t.Context(), other); err != nil || got.Duplicate {
		t.Errorf("the same id of another tenant: %+v, error %v", got, err)
	}
	if n := stored(t, server, schemas.StreamRequests); n != 2 {
		t.Errorf("%d requests are stored, want 2", n)
	}
}

// A request without an id is published past Accept and named by its sequence; Accept refuses one, and the name that is not
// the caller's to choose.
func TestRequestsWithoutAnID(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	for _, bad := range []string{"", "s17", "a.b"} {
		_, err := b.Accept(t.Context(), request(bad))
		wantCode(t, err, schemas.CodeInvalidValue)
	}
	_, js := raw(t, server)
	sequences := map[string]bool{}
	for range 2 {
		acked, err := js.Publish(t.Context(), schemas.RequestSubject("acme", "echo"), []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		sequences[schemas.SequenceID(acked.Sequence)] = true
	}
	for range 2 {
		d := takeRequest(t, b, "acme")
		r, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
		if err != nil || !sequences[r.Request] {
			t.Fatalf("%+v, error %v", r, err)
		}
		delete(sequences, r.Request)
		d.Settle(bus.Ack)
	}
}

func TestLargeBodyOfARequest(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	want := bytes.Repeat([]byte("b"), schemas.InlineBytes+1)
	r := request("large")
	r.Body = want
	if _, err := b.Accept(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if r.Object != nil || len(r.Body) != len(want) {
		t.Error("the caller's request was changed")
	}
	d := takeRequest(t, b, "acme")
	got, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
	if err != nil || len(d.Data) != 0 || got.Object == nil {
		t.Fatalf("%+v with %d bytes, error %v", got, len(d.Data), err)
	}
	if body, err := b.Body(t.Context(), got); err != nil || !bytes.Equal(body, want) {
		t.Errorf("body of %d bytes, error %v", len(body), err)
	}
	got.Object.Digest = strings.Repeat("0", len(got.Object.Digest))
	if _, err := b.Body(t.Context(), got); err == nil {
		t.Error("a body that is not the one named was returned")
	}
	if body, err := b.Body(t.Context(), request("small")); err != nil || string(body) != "{}" {
		t.Errorf("inline body %q, error %v", body, err)
	}
}

// A body that came by the direct door and fills a message fits into a work item and into the DLQ, with their headers.
func TestBodyThatFillsAMessage(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	body := bytes.Repeat([]byte("b"), 1<<20-64)
	msg := nats.NewMsg(schemas.RequestSubject("acme", "echo"))
	msg.Data = body
	if _, err := js.PublishMsg(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	d := takeRequest(t, b, "acme")
	r, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
	if err != nil || r.Object != nil {
		t.Fatalf("%v, error %v", r.Object, err)
	}
	if err := b.EnsureWorkConsumer(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	item := &schemas.Work{Request: *r, Dispatch: 1, Accepted: d.Time}
	if _, err := b.Dispatch(deadline(t, atOnce), item); err != nil {
		t.Fatal(err)
	}
	if item.Object != nil || len(item.Body) != len(body) {
		t.Error("the caller's item was changed")
	}
	puller := b.Work("echo")
	defer puller.Close()
	batch, err := puller.Fetch(deadline(t, patience), 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := schemas.DecodeWork("echo", batch[0].Header, batch[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := b.Body(t.Context(), &got.Request); err != nil || !bytes.Equal(read, body) {
		t.Errorf("body of %d bytes, error %v", len(read), err)
	}

	if err := b.DeadLetter(deadline(t, atOnce), r.Identity, "echo", strings.Repeat("why ", 100), d.Header, d.Data); err != nil {
		t.Fatal(err)
	}
	letter := last(t, js, schemas.StreamDLQ, schemas.DLQSubject("acme", "echo"))
	object, err := schemas.ParseObject(letter.Header.Get(schemas.HeaderObject))
	if err != nil || object == nil {
		t.Fatalf("object %v, error %v", object, err)
	}
	if read, err := b.Body(t.Context(), &schemas.Request{Object: object}); err != nil || !bytes.Equal(read, body) {
		t.Errorf("dead body of %d bytes, error %v", len(read), err)
	}
}

func TestDispatchIsStoredOnce(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	first, err := b.Dispatch(t.Context(), work("r-1", []byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Dispatch(t.Context(), work("r-1", []byte("{}"))); err != nil || again != first {
		t.Errorf("the same dispatch: sequence %d, error %v, want %d", again, err, first)
	}
	second := work("r-1", []byte("{}"))
	second.Dispatch = 2
	later, err := b.Dispatch(t.Context(), second)
	if err != nil || later == first {
		t.Errorf("the next dispatch: sequence %d, error %v", later, err)
	}
	for sequence, want := range map[uint64]bool{first: true, later: true, later + 1: false} {
		if exists, err := b.WorkExists(t.Context(), sequence); err != nil || exists != want {
			t.Errorf("item %d exists: %v, error %v", sequence, exists, err)
		}
	}
	if _, err := connect(t, bustest.Server(t), bus.Config{}).WorkExists(t.Context(), first); err == nil {
		t.Error("a missing stream looks like a missing item")
	}
}

func TestDeadLetterKeepsTheReason(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	h := schemas.Header{schemas.HeaderPriority: {"batch"}, schemas.HeaderMsgID: {"x"}, "Stranger": {"y"}}
	if err := b.DeadLetter(t.Context(), alice, "echo", "two\nlines", h, []byte("body")); err != nil {
		t.Fatal(err)
	}
	letter := last(t, js, schemas.StreamDLQ, schemas.DLQSubject("acme", "echo"))
	for key, want := range map[string]string{
		schemas.HeaderReason: "two lines", schemas.HeaderTenant: "acme", schemas.HeaderRequestID: "r-1", schemas.HeaderPriority: "batch",
		schemas.HeaderMsgID: "", "Stranger": "",
	} {
		if got := letter.Header.Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if string(letter.Data) != "body" {
		t.Errorf("body %q", letter.Data)
	}
	// What is wrong may be the names themselves.
	for _, name := range []string{"", "a.b", "*", "sp ace", strings.Repeat("n", 300)} {
		if err := b.DeadLetter(t.Context(), schemas.Identity{Tenant: name, Request: name}, name, "bad names", nil, nil); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if n := stored(t, server, schemas.StreamDLQ); n != 6 {
		t.Errorf("%d dead letters, want 6", n)
	}
}

// Beyond the requests that one tenant may have waiting for a model, the caller is told to come back.
func TestTooManyRequestsOfOneSubject(t *testing.T) {
	t.Parallel()
	const limit = 1024
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	for range limit - 1 {
		if _, err := js.PublishAsync(schemas.RequestSubject("acme", "echo"), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	if _, err := b.Accept(t.Context(), request("last")); err != nil {
		t.Fatalf("request %d: %v", limit, err)
	}
	began := time.Now()
	_, err := b.Accept(t.Context(), request("more"))
	if e := wantCode(t, err, schemas.CodeOverloaded); e.RetryAfter <= 0 || time.Since(began) > atOnce {
		t.Errorf("retry after %v, told after %v", e.RetryAfter, time.Since(began))
	}
	if got, err := b.Accept(t.Context(), request("last")); err != nil || !got.Duplicate {
		t.Errorf("one that was accepted: %+v, error %v", got, err)
	}
	free := request("more")
	free.ModelToken = "other"
	if _, err := b.Accept(t.Context(), free); err != nil {
		t.Errorf("another model: %v", err)
	}
	takeRequest(t, b, "acme").Settle(bus.Ack)
	eventually(t, "room for one more", func() bool {
		_, err := b.Accept(t.Context(), request("room"))
		return err == nil
	})
}

func TestAcceptOverALostAnswer(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	if _, err := b.Accept(t.Context(), request("first")); err != nil { // it has looked for room
		t.Fatal(err)
	}
	p.Set(bustest.ToClient, bustest.Hold)
	done := make(chan error, 1)
	ctx := deadline(t, patience)
	go func() {
		got, err := b.Accept(ctx, request("r-1"))
		if err == nil && !(got.Duplicate && got.Waits) {
			err = fmt.Errorf("%+v", got)
		}
		done <- err
	}()
	eventually(t, "the commit", func() bool {
		d := takeRequest(t, near, "acme")
		defer d.Settle(bus.Silent)
		return d.Header[schemas.HeaderRequestID][0] == "r-1"
	})
	p.Cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if again, err := near.Accept(t.Context(), request("r-1")); err != nil || !again.Duplicate {
		t.Errorf("it was not the one that is stored: %+v, error %v", again, err)
	}
}

func TestErrorOfEachAnswerToAccept(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		want   schemas.Code
		tries  int32
	}{
		"limit reached":  {`{"error":{"code":503,"err_code":10077,"description":"x"}}`, schemas.CodeOverloaded, 1},
		"refused":        {`{"error":{"code":400,"err_code":10055,"description":"x"}}`, schemas.CodeUnavailable, 1},
		"leader is away": {`{"error":{"code":503,"err_code":10008,"description":"x"}}`, "", 2},
		"id in flight":   {`{"error":{"code":409,"err_code":10158,"description":"x"}}`, "", 2},
		"not understood": {`?`, "", 2},
		"stored at once": {`{"stream":"S","seq":1}`, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t)
			b := connect(t, server, bus.Config{})
			conn, _ := raw(t, server)
			var tries atomic.Int32
			stand(t, conn, schemas.RequestsAll, func(*nats.Msg) string {
				if tries.Add(1) == 1 {
					return tt.answer
				}
				return `{"stream":"S","seq":1}`
			})
			_, err := b.Accept(deadline(t, patience), request("r-1"))
			if tt.want != "" {
				wantCode(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
			if n := tries.Load(); n != tt.tries {
				t.Errorf("%d tries, want %d", n, tt.tries)
			}
		})
	}
}

// Running requests keep their space: new ones are refused before a stream that they write to is full.
func TestFullStreamsRefuseRequests(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	log := &journal{}
	b := bustest.Connect(t, server, bus.Config{StoreBytes: 8 << 20, Logger: log.logger()})
	accepts := func() error {
		_, err := b.Accept(t.Context(), request("r-1"))
		return err
	}
	if err := accepts(); err != nil {
		t.Fatal(err)
	}
	frame := delta("a", 0, strings.Repeat("x", schemas.InlineBytes*9/10))
	last := write(t, b, alice, 0, start("a"))
	for i := range uint64(8) {
		frame.Index = i
		last = write(t, b, alice, last, frame)
	}
	var full error
	eventually(t, "a refusal", func() bool { full = accepts(); return full != nil })
	if e := wantCode(t, full, schemas.CodeUnavailable); !strings.Contains(e.Message, "storage is full") || e.RetryAfter <= 0 {
		t.Errorf("%q, retry after %v", e.Message, e.RetryAfter)
	}
	wantCode(t, b.Ready(t.Context()), schemas.CodeUnavailable)
	if n := len(log.lines("new requests are refused", schemas.StreamReplies, "90 %")); n != 1 {
		t.Errorf("the reason was logged %d times, want once", n)
	}
	if c := chain(t, b, alice); len(c.Frames) != 9 {
		t.Errorf("something live was evicted: %d frames", len(c.Frames))
	}
	purge(t, server, alice, 0)
	eventually(t, "requests are accepted again", func() bool { return accepts() == nil })
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoRoomRefusesRequests(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	full.Store(true)
	b := bustest.Connect(t, bustest.Server(t), bus.Config{Room: func() error {
		if full.Load() {
			return errors.New("the disk has 3 MiB left")
		}
		return nil
	}})
	_, err := b.Accept(t.Context(), request("r-1"))
	if e := wantCode(t, err, schemas.CodeUnavailable); !strings.Contains(e.Message, "storage is full") || strings.Contains(e.Message, "3 MiB") {
		t.Errorf("message %q", e.Message)
	}
	full.Store(false)
	eventually(t, "requests are accepted again", func() bool {
		_, err := b.Accept(t.Context(), request("r-1"))
		return err == nil
	})
}

func TestReady(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	server.Close()
	eventually(t, "not ready", func() bool { return b.Ready(deadline(t, atOnce)) != nil })
	wantCode(t, b.Ready(t.Context()), schemas.CodeUnavailable)
}

// takeRequest takes the next request of a tenant.
func takeRequest(t testing.TB, b *bus.Bus, tenant string) *bus.Delivery {
	t.Helper()
	got := make(chan *bus.Delivery, schemas.Partitions)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var pullers sync.WaitGroup
	for p := range schemas.Partitions {
		pullers.Go(func() {
			puller := b.Requests(p)
			defer puller.Close()
			if batch, err := puller.Fetch(ctx, 1); err == nil {
				got <- batch[0]
				cancel()
			}
		})
	}
	pullers.Wait()
	if len(got) != 1 {
		t.Fatalf("%d requests at a time, want one", len(got))
	}
	d := <-got
	if of, _, ok := schemas.ParseQueueSubject(d.Subject); !ok || of != tenant {
		t.Fatalf("a request of %s (%s)", of, d.Subject)
	}
	return d
}

func stored(t testing.TB, server *natsd.Server, stream string) uint64 {
	t.Helper()
	_, js := raw(t, server)
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func last(t testing.TB, js jetstream.JetStream, stream, subject string) *jetstream.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
