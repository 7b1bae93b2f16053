package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// A request that is ended while it waits for a place ends at once, never reaches the model server, and costs nothing; the
// result says who ended it.
func TestCancelOfAQueuedRequest(t *testing.T) {
	t.Parallel()
	engine := openaitest.NewEngine(t, openaitest.EngineDials{Stall: 3})
	serve := serveModel(t, fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: openai, url: %q, max_in_flight: 1}]\ningest: {disconnect_grace: 50ms}\n", engine.URL))
	nats, err := client.Connect(t.Context(), client.Config{URL: serve.NATS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nats.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	leaveAll, leave := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer leave()
	ask := func(ctx context.Context, id string, header ...string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+serve.HTTP+"/v1/chat/completions",
			strings.NewReader(fmt.Sprintf(`{"model":"m","stream":true,"messages":[{"role":"user","content":%q}]}`, id)))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(schemas.HeaderRequestID, id)
		r.Header.Set(schemas.HeaderOnDisconnect, string(schemas.DisconnectCancel))
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		asking.Go(func() {
			if response, err := caller().Do(r); err == nil { // it may be left before
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		})
	}
	ask(leaveAll, "holds-the-place")
	becomes(t, "the first call", func() bool { return len(engine.Requests()) == 1 })
	for i, test := range []struct {
		name     string
		deadline time.Duration
		end      func(id string, leave func())
		by       schemas.CancelledBy
		status   schemas.Status
	}{
		{"the caller leaves", 0, func(_ string, leave func()) { leave() }, schemas.CancelledByDisconnect, schemas.StatusCancelled},
		{"cancel over HTTP", 0, func(id string, _ func()) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+serve.HTTP+"/v1/streams/"+id+"/cancel", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := caller().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if response.Body.Close(); response.StatusCode != http.StatusOK {
				t.Errorf("cancel: %s", response.Status)
			}
		}, schemas.CancelledByCaller, schemas.StatusCancelled},
		{"cancel over NATS", 0, func(id string, _ func()) {
			if err := nats.Cancel(ctx, "default", id); err != nil {
				t.Error(err)
			}
		}, schemas.CancelledByCaller, schemas.StatusCancelled},
		{"deadline", 2 * time.Second, func(string, func()) {}, schemas.CancelledByDeadline, schemas.StatusExpired},
	} {
		id := "queued-" + strconv.Itoa(i)
		reading, leave := context.WithCancel(ctx)
		began, header := time.Now(), []string{}
		if test.deadline > 0 {
			header = []string{schemas.HeaderDeadline, strconv.FormatInt(began.Add(test.deadline).UnixMilli(), 10)}
		}
		ask(reading, id, header...)
		if test.deadline == 0 {
			becomes(t, test.name+": the queue", func() bool { return serve.metric(t, "weir_router_queued_requests") == 1 })
			began = time.Now()
		}
		test.end(id, leave)
		var result *schemas.Result
		becomes(t, test.name+": the result", func() bool {
			result, err = nats.Result(ctx, "default", id)
			return err == nil
		})
		if took := time.Since(began) - test.deadline; took > 10*time.Second { // on a loaded machine
			t.Errorf("%s: it ended after %v", test.name, took)
		}
		if result.Status != test.status || result.CancelledBy != test.by {
			t.Errorf("%s: %s by %q, want %s by %q", test.name, result.Status, result.CancelledBy, test.status, test.by)
		}
		if result.Usage != nil || len(result.Tries) > 0 || result.Attempts != 0 {
			t.Errorf("%s: it cost %+v in %d attempts: %+v", test.name, result.Usage, result.Attempts, result.Tries)
		}
		becomes(t, test.name+": the queue to be empty", func() bool { return serve.metric(t, "weir_router_queued_requests") == 0 })
		leave()
	}
	if n := len(engine.Requests()); n != 1 {
		t.Errorf("the model server was called %d times", n)
	}
}

// metric reads a metric without labels.
func (p *process) metric(t *testing.T, name string) float64 {
	t.Helper()
	_, text := get(t, "http://"+p.Admin+"/metrics")
	_, rest, ok := strings.Cut("\n"+text, "\n"+name+" ")
	if !ok {
		t.Fatalf("no metric %s", name)
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
