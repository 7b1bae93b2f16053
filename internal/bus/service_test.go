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
