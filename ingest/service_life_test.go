package ingest_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func TestServiceDrains(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	gate := make(chan struct{})
	script := func(j *job) { j.start(); j.delta(1); j.wait(gate); j.delta(1); j.end() }
	one := &natsBench{bench: setupOn(t, bustest.Connect(t, server, bus.Config{}), script, func(c *ingest.Config) { c.DrainLimit = time.Minute }), server: server}
	one.offered()
	c := one.tenant("acme")
	sub := c.open(chatSubject, bareStream)
	first := next(t, sub)
	two := &natsBench{bench: setupOn(t, bustest.Connect(t, server, bus.Config{}), nil), server: server}
	stopped := make(chan error, 1)
	go func() { stopped <- one.stop() }()
	eventually(t, "draining", func() bool { return one.door.Ready(t.Context()) != nil })
	two.offered() // and from now on by the second door alone
	close(gate)
	rest, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	append(reply{first}, rest...).wantsEvents(t, 0, 2)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	c.ask(chatSubject, bareStream).wantsEvents(t, 0, 2)
}

func TestServiceDrainLimit(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, hang, func(c *ingest.Config) { c.DrainLimit = 100 * time.Millisecond })
	sub := n.tenant("acme").open(chatSubject, bareStream)
	id := next(t, sub).Header.Get(schemas.HeaderRequestID)
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	got, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	got.wantsError(t, "503", "server_shutdown")
	n.stays(schemas.Identity{Tenant: "acme", Request: id}, 50*time.Millisecond)
}

// Several doors share the requests, and the operator sees each with its numbers.
func TestServiceIsShared(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	setupOn(t, bustest.Connect(t, n.server, bus.Config{}), nil)
	operator, c := n.trusted(), n.tenant("acme")
	type instance struct {
		ID, Name  string
		Metadata  map[string]string
		Endpoints []struct {
			Name, Subject string
			Queue         string `json:"queue_group"`
			Requests      int    `json:"num_requests"`
			Data          struct{ Open, Answered, Failed int }
		}
	}
	instances := func(verb string) (all []instance) {
		inbox, err := operator.conn.SubscribeSync(operator.conn.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		operator.send("$SRV."+verb+".weir", inbox.Subject, "")
		for {
			msg, err := inbox.NextMsg(200 * time.Millisecond)
			if err != nil {
				return all
			}
			var one instance
			if err := json.Unmarshal(msg.Data, &one); err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
	}
	eventually(t, "two doors in two accounts", func() bool { return len(instances("INFO")) == 4 })
	eventually(t, "each door has answered a tenant", func() bool {
		c.ask(chatSubject, bareStream).wantsEvents(t, 0, 1)
		busy := 0
		for _, one := range instances("STATS") {
			for _, e := range one.Endpoints {
				if e.Name == "chat" && e.Requests > 0 && e.Data.Answered > 0 {
					busy++
				}
			}
		}
		return busy == 2
	})
	for _, one := range instances("INFO") {
		names := map[string]string{}
		for _, e := range one.Endpoints {
			if names[e.Name] = e.Subject; e.Queue != "weir" {
				t.Errorf("%s is in queue group %q", e.Name, e.Queue)
			}
		}
		want := map[string]string{"chat": "llm.chat.*.*", "resume": "llm.resume.*.*", "read": "llm.read.*.*"}
		if one.Metadata["account"] == "EDGE" {
			want["cancel"] = "llm.cancel.*.*"
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("endpoints (-want +got):\n%s", diff)
		}
	}
}

// A lost connection may take messages of an answer with it: then the answer ends in an error that says so.
func TestServiceTellsOfAGap(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	proxy := bustest.NewProxy(t, server.ClientURL())
	gate := make(chan struct{})
	serveJobs(t, bustest.Connect(t, server, bus.Config{}), func(j *job) { j.start(); j.delta(1); j.wait(gate); j.delta(1); j.end() })
	n := &natsBench{bench: setupOn(t, bustest.Connect(t, server, bus.Config{URL: proxy.URL()}), nil), server: server}
	n.offered()
	c := n.tenant("acme")
	sub := c.open(chatSubject, bareStream)
	first := next(t, sub)
	proxy.Cut()
	n.offered()
	close(gate)
	rest, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	rest.wantsError(t, "503", "service_unavailable")
	c.ask("llm.resume.acme."+first.Header.Get(schemas.HeaderRequestID), "0").wantsEvents(t, 1, 2)
}
