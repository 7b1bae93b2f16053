package ingest_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

func TestRespondAsync(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.start()
		j.wait(gate)
		j.respond(`{"answer":1}`)
	}, func(c *ingest.Config) { c.DisconnectGrace = time.Millisecond })

	var ids []string
	for _, header := range [][]string{{"Llm-Request-Id", "mine"}, {"Idempotency-Key", "k"}, {}} {
		got := w.chat(unary, append(header, "Prefer", "wait=5, Respond-Async; x=y")...).wants(t, 202, `"id":"`)
		id := got.id()
		if got.header.Get("Location") != "/v1/streams/"+id || got.header.Get("Preference-Applied") != "respond-async" {
			t.Errorf("headers %v", got.header)
		}
		w.ask("GET", "/v1/streams/"+id+"/result", "").wants(t, 202)
		ids = append(ids, id)
	}
	// The same again attaches, another body does not.
	w.chat(unary, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 202, `"id":"mine"`)
	w.chat(otherBody, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 422, "idempotency_mismatch")
	// None is cancelled although its caller has left, for longer than the grace.
	w.stays(of(ids[2]), 50*time.Millisecond)
	close(gate)
	for _, id := range ids {
		if last := w.terminal(of(id)); last.Kind != schemas.KindEnd {
			t.Errorf("%s ended in %s", id, last.Data)
		}
		w.ask("GET", "/v1/streams/"+id, "").wants(t, 200, `{"answer":1}`, done)
	}
	w.chat(unary, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 202)
	w.chat(`{"model":""}`, "Prefer", "respond-async").wants(t, 400)
}

func TestRespondAsyncEndsWithoutAReader(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.DetachedMax = 20 * time.Millisecond })
	id := w.chat(unary, "Prefer", "respond-async").wants(t, 202).id()
	if last := w.terminal(of(id)); last.Kind != schemas.KindError {
		t.Errorf("it ended in %s", last.Kind)
	}
}
