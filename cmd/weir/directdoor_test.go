package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// TestASecondRequestUnderAUsedID at the direct door, with another body: with a message id JetStream says that it is a
// duplicate and nobody sees it; without one it is moved to the dead letters, while the first runs and when it has ended.
// The first is answered as if nothing had been.
func TestASecondRequestUnderAUsedID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	conn := newWitness(t, dir).conn
	publish := func(body, msgID string) (ack string) {
		t.Helper()
		m := &nats.Msg{Subject: "llm.requests.default.echo", Data: []byte(body), Header: nats.Header{schemas.HeaderRequestID: {"used"}}}
		if msgID != "" {
			m.Header.Set(schemas.HeaderMsgID, msgID)
		}
		answer, err := conn.RequestMsg(m, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer.Data)
	}
	letters, err := conn.SubscribeSync("llm.dlq.default.echo")
	if err != nil {
		t.Fatal(err)
	}
	buried := func() {
		t.Helper()
		letter, err := letters.NextMsg(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if reason := letter.Header.Get(schemas.HeaderReason); !strings.Contains(reason, "used for another body") || !strings.Contains(string(letter.Data), "second") {
			t.Errorf("reason %q of %s", reason, letter.Data)
		}
	}
	first := publish(chat("first", `,"x_echo":{"tokens":60,"interval_ms":50}`), "default/used")
	if again := publish(chat("second", ""), "default/used"); gjson.Get(first, "duplicate").Bool() || !gjson.Get(again, "duplicate").Bool() || gjson.Get(first, "seq").Raw != gjson.Get(again, "seq").Raw {
		t.Errorf("acknowledged with %s, then %s", first, again)
	}
	result, url := "", "http://"+serve.HTTP+"/v1/streams/used/result"
	becomes(t, "the request is known", func() bool { status, _ := get(t, url); return status == http.StatusAccepted || status == http.StatusOK })
	publish(chat("second", ""), "") // while the first runs
	buried()
	becomes(t, "the first request has its result", func() (ended bool) {
		status, body := get(t, url)
		result = body
		return status == http.StatusOK
	})
	if !strings.Contains(result, "echo: first") || strings.Contains(result, "second") {
		t.Errorf("the result is %s", result)
	}
	publish(chat("second", ""), "") // when it has ended
	buried()
}
