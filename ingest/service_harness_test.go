package ingest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// natsBench is a door with the server that its NATS callers use.
type natsBench struct {
	*bench
	server *natsd.Server
}

func setupNATS(t *testing.T, script func(*job), configure ...func(*ingest.Config)) *natsBench {
	t.Helper()
	server := bustest.Server(t)
	w := setupOn(t, bustest.Connect(t, server, bus.Config{}), script, configure...)
	n := &natsBench{bench: w, server: server}
	n.offered()
	return n
}

// offered waits until the service can be asked, in both accounts.
func (n *natsBench) offered() {
	n.t.Helper()
	c := n.tenant("somebody")
	eventually(n.t, "the service and the bus behind it", func() bool {
		// What reaches a connection that is being cut is lost, as NATS says: it is asked again.
		sub := c.open("llm.resume.somebody.x", "")
		defer func() { _ = sub.Unsubscribe() }()
		got, err := collectWithin(sub, time.Second)
		return err == nil && len(got) > 0 && got[len(got)-1].Header.Get(schemas.HeaderServiceErrorCode) == "404"
	})
}

// caller is a connection that asks the service.
type caller struct {
	t    *testing.T
	conn *nats.Conn
	name string
	errs chan error // what the server refuses
}

func (n *natsBench) tenant(name string) *caller {
	n.t.Helper()
	errs := make(chan error, 64)
	return &caller{t: n.t, name: name, errs: errs, conn: bustest.Tenant(n.t, n.server, name,
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))}
}

func (n *natsBench) trusted() *caller {
	n.t.Helper()
	return &caller{t: n.t, conn: bustest.Trusted(n.t, n.server)}
}

// reply is an answer of the service up to its empty message.
type reply []*nats.Msg

// open sends a request and returns where its answer comes. The header is a list of names and values.
func (c *caller) open(subject, body string, header ...string) *nats.Subscription {
	c.t.Helper()
	sub, err := c.conn.SubscribeSync(c.conn.NewInbox())
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(subject, sub.Subject, body, header...)
	return sub
}

func (c *caller) send(subject, to, body string, header ...string) {
	c.t.Helper()
	msg := &nats.Msg{Subject: subject, Reply: to, Data: []byte(body), Header: nats.Header{}}
	for i := 0; i < len(header); i += 2 {
		msg.Header[header[i]] = append(msg.Header[header[i]], header[i+1])
	}
	if err := c.conn.PublishMsg(msg); err != nil {
		c.t.Fatal(err)
	}
	if err := c.conn.FlushTimeout(longEnough); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request and waits for the whole answer. The service is offered a moment after the door opens.
func (c *caller) ask(subject, body string, header ...string) reply {
	c.t.Helper()
	for deadline := time.Now().Add(longEnough); ; <-time.After(pollInterval) {
		sub := c.open(subject, body, header...)
		all, err := collect(sub)
		_ = sub.Unsubscribe()
		if err == nil {
			return all
		}
		if err != nats.ErrNoResponders || time.Now().After(deadline) {
			c.t.Fatalf("%s: after %d messages: %v", subject, len(all), err)
		}
	}
}

func collect(sub *nats.Subscription) (all reply, err error) {
	return collectWithin(sub, longEnough)
}

// collectWithin waits so long for each message of an answer.
func collectWithin(sub *nats.Subscription, patience time.Duration) (all reply, err error) {
	for {
		msg, err := sub.NextMsg(patience)
		if err != nil {
			return all, err
		}
		if len(msg.Data) == 0 {
			if len(msg.Header) > 0 {
				return all, fmt.Errorf("the last message has headers %v", msg.Header)
			}
			return all, nil
		}
		all = append(all, msg)
	}
}

func next(t *testing.T, sub *nats.Subscription) *nats.Msg {
	t.Helper()
	msg, err := sub.NextMsg(longEnough)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func (r reply) String() string {
	var b strings.Builder
	for _, m := range r {
		fmt.Fprintf(&b, "%v %.200q\n", m.Header, m.Data)
	}
	return b.String()
}

// wantsError fails the test unless the answer is one error.
func (r reply) wantsError(t *testing.T, status, code string) {
	t.Helper()
	if len(r) == 0 {
		t.Fatal("an empty answer")
	}
	last := r[len(r)-1]
	e, err := schemas.DecodeError(last.Data)
	if err != nil || string(e.Code) != code || last.Header.Get(schemas.HeaderServiceErrorCode) != status || last.Header.Get(schemas.HeaderServiceError) == "" {
		t.Fatalf("want %s %s, got\n%s", status, code, r)
	}
}

// wantsEvents fails the test unless the answer is the events from first to last (exclusive), in messages with the header of
// a frame and the request's id.
func (r reply) wantsEvents(t *testing.T, first, last int) {
	t.Helper()
	at := first
	for _, m := range r {
		f, err := schemas.DecodeFrame(schemas.Header(m.Header), m.Data)
		if err != nil || f.Kind != schemas.KindDelta || f.Index != uint64(at) || m.Header.Get(schemas.HeaderRequestID) != r.id() {
			t.Fatalf("a message is not the frame with event %d: %v\n%s", at, err, r)
		}
		for _, e := range f.Events() {
			if string(e) != event(at) {
				t.Fatalf("event %d is %s", at, e)
			}
			at++
		}
	}
	if at != last {
		t.Fatalf("the answer ends before event %d, want %d:\n%s", at, last, r)
	}
}

func (r reply) id() string {
	if len(r) == 0 {
		return ""
	}
	return r[0].Header.Get(schemas.HeaderRequestID)
}

// chain is what is stored of a request.
func (n *natsBench) chain(id schemas.Identity) *bus.Chain {
	n.t.Helper()
	chain, err := n.bus.Chain(context.Background(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return chain
}
