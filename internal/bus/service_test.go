package bus_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
)

func TestServeNeedsAWholeUserOfEdge(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	for name, edge := range map[string]bus.Credentials{
		"a wrong password": {Username: "weir-edge", Password: "guess"},
		"no file":          {CredsFile: t.TempDir() + "/none.creds"},
	} {
		b, err := bus.Connect(t.Context(), bus.Config{
			URL: server.ClientURL(), Username: server.Username(), Password: server.Password(), Name: "test", Edge: &edge,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Serve(bus.ServiceConfig{Name: "weir", Version: "1.0.0"}); err == nil {
			t.Errorf("%s: the service is offered", name)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestServeRefusesWhatTheFrameworkDoes(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for _, cfg := range []bus.ServiceConfig{
		{Name: "", Version: "1.0.0"},
		{Name: "weir", Version: "first"},
		{Name: "weir", Version: "1.0.0", Endpoints: []bus.Endpoint{{Name: "a b", Subject: "x", Handle: func(*bus.Ask) {}}}},
	} {
		if _, err := b.Serve(cfg); err == nil {
			t.Errorf("offered %+v", cfg)
		}
	}
}

func TestAskCannotSendMoreThanAMessage(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	asks := make(chan *bus.Ask, 1)
	service, err := b.Serve(bus.ServiceConfig{Name: "weir", Version: "1.0.0", Endpoints: []bus.Endpoint{
		{Name: "x", Subject: "llm.chat.*.*", Handle: func(a *bus.Ask) { asks <- a }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	caller := bustest.Trusted(t, server)
	inbox, err := caller.SubscribeSync(caller.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.PublishRequest("llm.chat.a.m", inbox.Subject, nil); err != nil {
		t.Fatal(err)
	}
	ask := <-asks
	header := map[string][]string{"X": {strings.Repeat("x", 3<<10)}}
	if err := ask.Send(t.Context(), 0, header, make([]byte, ask.MaxData())); err != nil {
		t.Errorf("the largest payload: %v", err)
	}
	if err := ask.Send(t.Context(), 0, header, make([]byte, ask.MaxData()+2<<10)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("a larger one: %v", err)
	}
	if err := service.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
}

// An end that arrived where something before it was lost would make a cut answer look whole.
func TestAnAnswerEndsOnlyAfterAllOfIt(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	proxy := bustest.NewProxy(t, server.ClientURL())
	b := bustest.Connect(t, server, bus.Config{URL: proxy.URL()})
	asks := make(chan *bus.Ask, 1)
	service, err := b.Serve(bus.ServiceConfig{Name: "weir", Version: "1.0.0", Endpoints: []bus.Endpoint{
		{Name: "x", Subject: "llm.chat.*.*", Handle: func(a *bus.Ask) { asks <- a }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	caller := bustest.Trusted(t, server)
	ask := func() (*bus.Ask, *nats.Subscription) {
		inbox, err := caller.SubscribeSync(caller.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := caller.PublishRequest("llm.chat.a.m", inbox.Subject, nil); err != nil {
			t.Fatal(err)
		}
		return <-asks, inbox
	}
	whole, inbox := ask()
	if err := errors.Join(whole.Send(t.Context(), patience, nil, []byte("all")), whole.End(t.Context(), patience)); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"all", ""} {
		if msg, err := inbox.NextMsg(patience); err != nil || string(msg.Data) != want {
			t.Errorf("%v, %v; want %q", msg, err, want)
		}
	}

	cut, _ := ask()
	held := proxy.At(bustest.ToServer, "lost", bustest.Drop)
	if err := cut.Send(t.Context(), patience, nil, []byte("lost")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cut.End(t.Context(), patience) }()
	<-held
	proxy.Cut()
	if err := <-ended; !errors.Is(err, bus.ErrGap) {
		t.Errorf("the end of an answer that was lost: %v", err)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
}

// What comes faster than it is handled is bounded, and what is beyond the bound is dropped.
func TestServicePendingLimit(t *testing.T) {
	t.Parallel()
	const limit, beyond = 4096, 100
	server := bustest.Server(t)
	// Without account EDGE there is one connection to ask.
	b, err := bus.Connect(t.Context(), bus.Config{URL: server.ClientURL(), Username: server.Username(), Password: server.Password(), Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	gate, handled := make(chan struct{}), make(chan struct{}, limit+2*beyond)
	service, err := b.Serve(bus.ServiceConfig{Name: "weir", Version: "1.0.0", Endpoints: []bus.Endpoint{
		{Name: "x", Subject: "llm.chat.*.*", Handle: func(*bus.Ask) { handled <- struct{}{}; <-gate }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	caller := bustest.Trusted(t, server)
	send := func(n int) {
		for range n {
			if err := caller.Publish("llm.chat.a.m", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := caller.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	send(1)
	<-handled // and waits
	send(limit + beyond)
	// The same connection is asked after them, so that they have all come when it answers.
	if _, err := caller.Request("$SRV.PING.weir", nil, patience); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if err := service.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
	if n := 1 + len(handled); n != limit && n != limit+1 { // the first counts as pending until it is handled, or not
		t.Errorf("%d of %d requests were handled, want %d", n, 1+limit+beyond, limit)
	}
}
