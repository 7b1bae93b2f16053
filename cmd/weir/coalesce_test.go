package main

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// The caller of the request that runs leaves, for longer than the grace of 10 s after which its request would be cancelled.
// Who shares the run gets all of it.
func TestTheRunGoesOnForThoseWhoShareIt(t *testing.T) {
	t.Parallel()
	const pieces = 24
	dials := openaitest.Dials{Pace: 600 * time.Millisecond}
	for range pieces {
		dials.Events = append(dials.Events, chunk("x", "null"))
	}
	dials.Events = append(dials.Events, chunk("", `"stop"`))
	upstream := openaitest.New(t, dials)
	config := strings.Replace(upstreamConfig(upstream.URL), "{first_token: 1s, idle: 1s}", "{first_token: 20s, idle: 20s}", 1)
	serve := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--config",
		writeConfig(t, config+"tenants: {default: {coalesce: on}}\n"))
	const body = `{"model":"m","temperature":0,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
	first := serve.post(t, body)
	if _, err := bufio.NewReader(first.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	second := serve.post(t, body)
	if got := second.Header.Get(schemas.HeaderCache); got != string(schemas.CacheCoalesced) {
		t.Errorf("%s is %q", schemas.HeaderCache, got)
	}
	if err := first.Body.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(second.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, code, done := answerOf(t, answer); text != strings.Repeat("x", pieces) || code != "" || !done {
		t.Errorf("text %q, code %q, ended with [DONE]: %t", text, code, done)
	}
	if n := len(upstream.Requests()); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}
