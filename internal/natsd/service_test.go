package natsd

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
)

// isServed checks that the service answers tenants on every node, from one, and notices there when they leave.
func isServed(t *testing.T, nodes []*server.Server, tenants []*nats.Conn) {
	b, err := bus.Connect(t.Context(), bus.Config{
		URL: nodes[0].ClientURL(), Username: "weir", Password: "pipeline", Name: "test",
		Edge: &bus.Credentials{Username: "edge", Password: "tenants"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	left := make(chan string, len(nodes))
	service, err := b.Serve(bus.ServiceConfig{Name: "test", Version: "1.0.0", Endpoints: []bus.Endpoint{{
		Name: "chat", Subject: "llm.chat.*.*", Edge: true,
		Handle: func(ask *bus.Ask) { go talk(t, ask, left) }, // it ends when the caller has left
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = service.Close() }()
	for i, nc := range tenants {
		subject := "llm.chat.acme." + nodes[i].Name()
		inbox, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; { // until the node knows that ingest listens
			if err := nc.PublishRequest(subject, inbox.Subject, nil); err != nil {
				t.Fatal(err)
			}
			msg, err := inbox.NextMsg(5 * time.Second)
			if err == nil && string(msg.Data) == "talk" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node %s: %v, %v", nodes[i].Name(), msg, err)
			}
		}
		if err := inbox.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-left:
			if got != subject {
				t.Errorf("%s left, want %s", got, subject)
			}
		case <-time.After(time.Minute):
			t.Errorf("node %s: nobody noticed that the caller left", nodes[i].Name())
		}
	}
}

func talk(t *testing.T, ask *bus.Ask, left chan<- string) {
	ctx, leave := context.WithTimeout(context.Background(), 2*time.Minute)
	defer leave()
	defer ask.Watch(leave)()
	for ctx.Err() == nil {
		if err := ask.Send(ctx, time.Minute, nil, []byte("talk")); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	left <- ask.Subject
}
