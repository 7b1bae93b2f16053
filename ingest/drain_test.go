package ingest_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
)

func TestDrainWaitsForAnswers(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.delta(1); j.end() })
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	eventually(t, "draining", func() bool { return w.door.Ready(t.Context()) != nil })
	close(gate)
	read(response).wants(t, 200, done)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestDrainLimit(t *testing.T) {
	t.Parallel()
	started := make(chan *job, 3)
	w := setup(t, func(j *job) {
		if j.request.Request == "silent" {
			started <- j
			j.wait(nil)
			return
		}
		j.start()
		j.delta(2)
		started <- j
		j.wait(nil)
	}, func(c *ingest.Config) { c.DrainLimit = 100 * time.Millisecond })
	posted := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	id := posted.Header.Get("X-Request-Id")
	resumed := w.do(t.Context(), "GET", "/v1/streams/"+id, "")
	var asked sync.WaitGroup
	var held answer
	asked.Go(func() { held = w.chat(streaming, "Llm-Request-Id", "silent") })
	<-started
	<-started
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	// The caller of the POST cannot resume by itself: it is told. The reader with a cursor sees a broken connection and
	// comes back elsewhere. Whoever has no status yet gets one that SDKs repeat.
	read(posted).wants(t, 200, sse(id, 0, 2)+`data: {"error":`, "server_shutdown").without(t, "DONE")
	if got := read(resumed); got.err == nil || got.body != sse(id, 0, 2) {
		t.Errorf("the reader got %q, %v", got.body, got.err)
	}
	asked.Wait()
	held.wants(t, 503, "server_shutdown")
	w.stays(of(id), 50*time.Millisecond)
	w.stays(of("silent"), 50*time.Millisecond)
}

func TestCloseWithoutRun(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	door, err := ingest.New(ingest.Config{Bus: w.bus, Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := door.Close(); err != nil {
		t.Error(err)
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	if _, err := ingest.New(ingest.Config{Bus: w.bus, Addr: w.door.Addr().String()}); err == nil {
		t.Error("New listened on an address in use")
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	w.ask("GET", "/livez", "").wants(t, 200, "ok")
	w.ask("GET", "/readyz", "").wants(t, 200, "ok")
	w.ask(http.MethodHead, "/livez", "").wants(t, 200)
	if err := w.bus.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready", func() bool { return w.ask("GET", "/readyz", "").status == 503 })
	w.ask("GET", "/livez", "").wants(t, 200, "ok")
	w.chat(unary).wants(t, 503, "service_unavailable")
}
