package main

import (
	"bufio"
	"context"
	"fmt"
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

// However a request is ended, the model server is left within a second, and the result says who did it and what it cost.
func TestCancelReachesTheModelServer(t *testing.T) {
	t.Parallel()
	engine := openaitest.NewEngine(t, openaitest.EngineDials{Stall: 3})
	serve := serveModel(t, fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: openai, url: %q, continue: tokens}]\ningest: {disconnect_grace: 50ms}\n", engine.URL))
	nats, err := client.Connect(t.Context(), client.Config{URL: serve.NATS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nats.Close() })
	call := func(ctx context.Context, method, path string) {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+serve.HTTP+path, http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		response, err := caller().Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %s", method, path, response.Status)
		}
	}
	const patience = time.Minute
	for i, test := range []struct {
		name     string
		deadline time.Duration
		end      func(ctx context.Context, id string, leave func())
		by       schemas.CancelledBy
		status   schemas.Status
	}{
		{"the caller leaves", 0, func(_ context.Context, _ string, leave func()) { leave() }, schemas.CancelledByDisconnect, schemas.StatusCancelled},
		{"cancel over HTTP", 0, func(ctx context.Context, id string, _ func()) {
			call(ctx, http.MethodPost, "/v1/streams/"+id+"/cancel")
		}, schemas.CancelledByCaller, schemas.StatusCancelled},
		{"cancel over NATS", 0, func(ctx context.Context, id string, _ func()) {
			if err := nats.Cancel(ctx, "default", id); err != nil {
				t.Error(err)
			}
		}, schemas.CancelledByCaller, schemas.StatusCancelled},
		{"deadline", 5 * time.Second, func(ctx context.Context, _ string, _ func()) {}, schemas.CancelledByDeadline, schemas.StatusExpired},
		{"deletion", 0, func(ctx context.Context, id string, _ func()) { call(ctx, http.MethodDelete, "/v1/streams/"+id) }, "", schemas.StatusDeleted},
	} {
		var ending sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		id := "cancel-" + strconv.Itoa(i)
		reading, leave := context.WithCancel(ctx)
		r, err := http.NewRequestWithContext(reading, http.MethodPost, "http://"+serve.HTTP+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(schemas.HeaderRequestID, id)
		r.Header.Set(schemas.HeaderOnDisconnect, string(schemas.DisconnectCancel))
		began := time.Now()
		if test.deadline > 0 {
			r.Header.Set(schemas.HeaderDeadline, strconv.FormatInt(began.Add(test.deadline).UnixMilli(), 10))
		}
		response, err := caller().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		events := bufio.NewReader(response.Body)
		for range 4 { // the role, and the tokens that it will have cost
			firstEvent(t, events)
		}
		if test.deadline == 0 {
			began = time.Now()
			ending.Go(func() { test.end(ctx, id, leave) })
		}
		select {
		case <-engine.Gone():
			if took := time.Since(began) - test.deadline; took > patience/2 {
				t.Errorf("%s: the model server was left after %v", test.name, took)
			}
		case <-time.After(patience):
			t.Fatalf("%s: the model server is still being listened to", test.name)
		}
		ending.Wait() // a deletion puts a tombstone in the place of another result
		result, err := nats.Wait(ctx, "default", id)
		if err != nil || result.Status != test.status {
			t.Fatalf("%s: %+v, %v", test.name, result, err)
		}
		if result.CancelledBy != test.by && test.status != schemas.StatusDeleted {
			t.Errorf("%s: cancelled by %q, want %q", test.name, result.CancelledBy, test.by)
		}
		if u := result.Usage; test.status != schemas.StatusDeleted && (u == nil || u.PromptTokens != 5 || u.CompletionTokens == 0 || u.Estimated) {
			t.Errorf("%s: it cost %+v", test.name, u)
		}
		leave()
		response.Body.Close()
		cancel()
	}
}
