package ingest_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.start()
		j.delta(1)
		if strings.Contains(string(j.request.Body), "wait") {
			j.wait(gate)
		}
		j.end()
	}, func(c *ingest.Config) { c.MaxStreams = 3 })
	held := w.do(t.Context(), "POST", "/v1/chat/completions", strings.Replace(streaming, "hi", "wait", 1))
	for name, test := range map[string]struct {
		got       answer
		status    int
		remaining string
	}{
		"a stream": {w.chat(streaming), 200, "1"}, "an error": {w.chat(`{}`), 400, "2"}, "models": {w.ask("GET", "/v1/models", ""), 200, "2"},
	} {
		h := test.got.wants(t, test.status).header
		if h.Get("X-Ratelimit-Limit-Requests") != "3" || h.Get("X-Ratelimit-Remaining-Requests") != test.remaining {
			t.Errorf("%s: %v", name, h)
		}
		if ms, err := strconv.Atoi(h.Get("Openai-Processing-Ms")); err != nil || ms < 0 || ms > 20_000 {
			t.Errorf("%s: processing time %q", name, h.Get("Openai-Processing-Ms"))
		}
		if !strings.HasPrefix(h.Get("X-Request-Id"), "req_") {
			t.Errorf("%s: request id %q", name, h.Get("X-Request-Id"))
		}
		// When an answer ends is not known, nor is there a limit on tokens.
		for unknown := range h {
			if strings.HasPrefix(unknown, "X-Ratelimit-Reset") || strings.HasSuffix(unknown, "Tokens") {
				t.Errorf("%s: %s is invented", name, unknown)
			}
		}
	}
	close(gate)
	read(held).wants(t, 200, done)
}

func TestFullHouseSaysSo(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.end() }, func(c *ingest.Config) { c.MaxStreams = 1 })
	held := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	h := w.chat(streaming).wants(t, 503, "server_is_overloaded").header
	if h.Get("X-Ratelimit-Limit-Requests") != "1" || h.Get("X-Ratelimit-Remaining-Requests") != "0" || h.Get("Retry-After") != "1" || h.Get("Retry-After-Ms") != "1000" {
		t.Errorf("headers %v", h)
	}
	close(gate)
	read(held).wants(t, 200, done)
}

// How busy the door is does not concern whoever has no key.
func TestStrangersSeeNoLimits(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) {
		c.Keys = ring(t, keys.Configured{ID: "a", SHA256: hashOf("secret"), Tenant: "acme"})
	})
	for _, got := range []answer{w.ask("GET", "/v1/models", ""), w.ask("GET", "/nothing", "")} {
		if _, there := got.header["X-Ratelimit-Limit-Requests"]; there || got.header.Get("X-Request-Id") == "" {
			t.Errorf("status %d: %v", got.status, got.header)
		}
	}
}

func TestIdempotencyHeaders(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1))
	values := func(got answer) []string {
		return []string{got.header.Get("Idempotency-Key"), got.header.Get("Idempotent-Replayed")}
	}
	for i, test := range []struct {
		body, name string
		status     int
		want       []string
	}{
		{streaming, "Idempotency-Key", 200, []string{"my key", "false"}},
		{streaming, "Idempotency-Key", 200, []string{"my key", "true"}},
		{otherBody, "Idempotency-Key", 422, []string{"my key", "false"}},
		{streaming, "Llm-Request-Id", 200, []string{"", "false"}},
		{streaming, "Llm-Request-Id", 200, []string{"", "true"}},
		{streaming, "X-Other", 200, []string{"", ""}},
	} {
		value := "my key"
		if test.name == "Llm-Request-Id" {
			value = "my-id"
		}
		if got := values(w.chat(test.body, test.name, value).wants(t, test.status)); !slices.Equal(got, test.want) {
			t.Errorf("request %d: %q, want %q", i, got, test.want)
		}
	}
}

func TestRetriesOfSDKsAreCounted(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	w := setup(t, tokens(1), func(c *ingest.Config) { c.Registerer = registry })
	for _, count := range []string{"0", "1", "2", "-1", "many"} {
		w.chat(streaming, "X-Stainless-Retry-Count", count).wants(t, 200)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "weir_ingest_sdk_retries_total" {
			if n := family.GetMetric()[0].GetCounter().GetValue(); n != 2 {
				t.Errorf("%v retries counted, want 2", n)
			}
			return
		}
	}
	t.Error("the metric is not there")
}

func TestModel(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.Models = func() []string { return []string{"gpt-4.1", "org/my model"} } })
	w.ask("GET", "/v1/models/gpt-4.1", "").wants(t, 200, `{"id":"gpt-4.1","object":"model","created":1`, `"owned_by":"weir"}`)
	for _, path := range []string{"org/my%20model", "org%2Fmy%20model"} {
		w.ask("GET", "/v1/models/"+path, "").wants(t, 200, `"id":"org/my model"`)
	}
	w.ask("GET", "/v1/models/org%2Fother", "").wants(t, 404, `"code":"model_not_found"`, `"param":"model"`, "org/other")
	w.ask("DELETE", "/v1/models/gpt-4.1", "").wants(t, http.StatusMethodNotAllowed, "GET")
}

// Each op has its route, and its body travels under its name, byte for byte.
func TestOps(t *testing.T) {
	t.Parallel()
	seen := make(chan *schemas.Request, 1)
	w := setup(t, func(j *job) {
		seen <- j.request
		j.start()
		if strings.Contains(string(j.request.Body), `"stream":true`) {
			j.delta(2)
			j.end()
			return
		}
		j.respond(`{"object":"it"}`)
	})
	for _, test := range []struct {
		path, body string
		op         schemas.Op
	}{
		{"/v1/completions", `{"model":"m-1.5","prompt":["a","b"],"x":1}`, schemas.OpCompletion},
		{"/v1/completions", `{"model":"m-1.5","prompt":"a","stream":true}`, schemas.OpCompletion},
		{"/v1/embeddings", `{"input":[[1,2]],"model":"m-1.5","encoding_format":"base64"}`, schemas.OpEmbedding},
	} {
		got := w.ask("POST", test.path, test.body, "Llm-Op", string(test.op)).wants(t, 200)
		if strings.Contains(test.body, "stream") {
			got.wants(t, 200, sse(got.id(), 0, 2)+done)
		} else {
			got.wants(t, 200, `{"object":"it"}`)
		}
		if r := <-seen; r.Op != test.op || string(r.Body) != test.body || r.ModelToken != "m-1=2E5" {
			t.Errorf("%s: %+v", test.path, r)
		}
	}
	w.ask("POST", "/v1/embeddings", `{"model":"m","input":"a"}`, "Llm-Op", "chat").wants(t, 400, "Llm-Op")
	w.ask("POST", "/v1/embeddings", `{"model":"m","messages":[]}`).wants(t, 400, `"param":"input"`)
	w.ask("POST", "/v1/completions", `{"model":"m","messages":[]}`).wants(t, 400, `"param":"prompt"`)
}
