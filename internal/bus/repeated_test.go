package bus_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// A repeated request is known to be the same, or another, for as long as it waits; afterwards its frames tell.
func TestAcceptTellsWhatItRepeats(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	first, err := b.Accept(t.Context(), request("r-1"))
	if err != nil || first.Duplicate || !first.Waits {
		t.Fatalf("%+v, error %v", first, err)
	}
	same := request("r-1")
	same.Op = schemas.OpChat // which is what no op stands for
	other, op := request("r-1"), request("r-1")
	other.Body, op.Op = []byte("[]"), schemas.OpEmbedding
	repeats := func(where string) {
		t.Helper()
		if got, err := b.Accept(t.Context(), same); err != nil || !got.Duplicate || !got.Waits || got.Sequence != first.Sequence {
			t.Errorf("the same, %s: %+v, error %v", where, got, err)
		}
		for _, r := range []*schemas.Request{other, op} {
			_, err := b.Accept(t.Context(), r)
			wantCode(t, err, schemas.CodeIdempotencyMismatch)
		}
	}
	repeats("queued")
	if err := b.Hold(t.Context(), work("r-1", []byte("{}")), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	takeRequest(t, b, "acme").Settle(bus.Ack)
	eventually(t, "it is taken", func() bool { return stored(t, server, schemas.StreamRequests) == 0 })
	repeats("put off")
	b.Release(same.Identity)
	eventually(t, "it waits no more", func() bool {
		got, err := b.Accept(t.Context(), same)
		return err == nil && got.Duplicate && !got.Waits
	})
	if got, err := b.Accept(t.Context(), other); err != nil || !got.Duplicate || got.Waits {
		t.Errorf("another, which only the frames can tell: %+v, error %v", got, err)
	}
}

func TestAcceptTellsWhereTheRepeatedBodyIs(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	large := request("large")
	large.Body = bytes.Repeat([]byte("b"), schemas.InlineBytes+1)
	first, err := b.Accept(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Accept(t.Context(), large); err != nil || !again.Waits || again.Object == nil || *again.Object != *first.Object {
		t.Errorf("%+v, error %v, want the body at %v", again, err, first.Object)
	}
	large.Body[0] = 'c'
	_, err = b.Accept(t.Context(), large)
	wantCode(t, err, schemas.CodeIdempotencyMismatch)
}

// A message under the id of a request need not be one.
func TestAcceptOfAnIDThatAStrangerTook(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	_, js := raw(t, server)
	for id, header := range map[string]nats.Header{
		"nameless": {}, "renamed": {schemas.HeaderRequestID: {"another"}}, "unreadable": {schemas.HeaderRequestID: {"unreadable"}, schemas.HeaderDeadline: {"?"}},
	} {
		r := request(id)
		header[schemas.HeaderMsgID] = []string{r.String()}
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: schemas.RequestSubject(r.Tenant, r.ModelToken), Header: header, Data: r.Body}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Accept(t.Context(), r)
		wantCode(t, err, schemas.CodeIdempotencyMismatch)
	}
}

// What cannot be looked up now may be sent again.
func TestAcceptOfARepeatThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := connect(t, server, bus.Config{})
	conn, _ := raw(t, server)
	stand(t, conn, schemas.RequestsAll, func(*nats.Msg) string { return `{"stream":"S","seq":1,"duplicate":true}` })
	_, err := b.Accept(deadline(t, 300*time.Millisecond), request("r-1"))
	wantCode(t, err, schemas.CodeUnavailable)
}
