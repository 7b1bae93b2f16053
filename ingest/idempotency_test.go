package ingest_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

var otherBody = strings.Replace(streaming, "hi", "ho", 1)

func TestSameKeySameBodyAttaches(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	w := setup(t, func(j *job) { runs.Add(1); tokens(2, 1)(j) })
	for _, name := range []string{"Idempotency-Key", "Llm-Request-Id"} {
		runs.Store(0)
		first := w.chat(streaming, name, "again").wants(t, 200)
		second := w.chat(streaming, name, "again").wants(t, 200)
		if first.body != second.body || first.id() != second.id() || runs.Load() != 1 {
			t.Errorf("%s: %d runs, %q and %q", name, runs.Load(), first.id(), second.id())
		}
		got := w.chat(otherBody, name, "again").wants(t, 422, "idempotency_mismatch").without(t, "w0")
		if got.header.Get("X-Should-Retry") != "false" {
			t.Errorf("headers %v", got.header)
		}
	}
}

func TestSameKeyWhileItRuns(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	var runs atomic.Int32
	w := setup(t, func(j *job) {
		runs.Add(1)
		j.start()
		j.delta(1)
		j.wait(gate)
		j.delta(1)
		j.end()
	})
	first := w.do(t.Context(), "POST", "/v1/chat/completions", streaming, "Idempotency-Key", "k")
	w.chat(otherBody, "Idempotency-Key", "k").wants(t, 422)
	second := w.do(t.Context(), "POST", "/v1/chat/completions", streaming, "Idempotency-Key", "k")
	close(gate)
	a, b := read(first).wants(t, 200, done), read(second).wants(t, 200, done)
	if a.body != b.body || runs.Load() != 1 {
		t.Errorf("%d runs: %s and %s", runs.Load(), a.body, b.body)
	}
}

func TestSameKeyAtOnce(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	w := setup(t, func(j *job) { runs.Add(1); tokens(1, 1)(j) })
	var all sync.WaitGroup
	var matched, refused atomic.Int32
	for i := range 12 {
		body := streaming
		if i%3 == 0 {
			body = otherBody
		}
		all.Go(func() {
			switch got := w.chat(body, "Idempotency-Key", "race"); got.status {
			case 200:
				matched.Add(1)
				if !strings.HasSuffix(got.body, done) {
					t.Errorf("cut: %s", got.body)
				}
			case 422:
				refused.Add(1)
			default:
				t.Errorf("status %d: %s", got.status, got.body)
			}
		})
	}
	all.Wait()
	if m, r := matched.Load(), refused.Load(); runs.Load() != 1 || !(m == 8 && r == 4 || m == 4 && r == 8) {
		t.Errorf("%d runs, %d answers, %d refused", runs.Load(), m, r)
	}
}

func TestAcceptedFrame(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1))
	id := w.chat(streaming, "Idempotency-Key", "k").wants(t, 200).id()
	if id != schemas.IdempotencyID(ingest.DefaultTenant, "k") {
		t.Errorf("id %s", id)
	}
	chain, err := w.bus.Chain(t.Context(), of(id))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range chain.Frames {
		if f.Kind == schemas.KindAccepted && (i != 0 || f.BodyHash != schemas.BodyHash([]byte(streaming)) || f.Attempt != 0 || f.Count != 0) {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
}

func TestFailureBeforeTheFirstTokenFreesTheKey(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	w := setup(t, func(j *job) {
		if runs.Add(1) < 3 {
			j.start()
			j.fail(schemas.Errorf(schemas.CodeUpstreamError, "down"))
			return
		}
		tokens(1)(j)
	})
	w.chat(streaming, "Llm-Request-Id", "mine").wants(t, 502, "down")
	w.chat(streaming, "Llm-Request-Id", "mine").wants(t, 502, "down")
	got := w.chat(streaming, "Llm-Request-Id", "mine").wants(t, 200, "id: mine-2.0\n", done)
	if got.id() != "mine-2" {
		t.Errorf("the rerun is %s", got.id())
	}
	w.chat(streaming, "Llm-Request-Id", "mine").wants(t, 200, "id: mine-2.0\n", done)
	if runs.Load() != 3 {
		t.Errorf("%d runs", runs.Load())
	}
}

func TestOtherFailuresHoldTheKey(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	w := setup(t, func(j *job) {
		runs.Add(1)
		j.start()
		if strings.Contains(string(j.request.Body), "late") {
			j.delta(1)
			j.fail(schemas.Errorf(schemas.CodeUpstreamInterrupted, "cut"))
			return
		}
		j.fail(schemas.Errorf(schemas.CodeUpstreamRejected, "bad"))
	})
	late := strings.Replace(streaming, "hi", "late", 1)
	for range 2 {
		w.chat(streaming, "Idempotency-Key", "rejected").wants(t, 400, "bad")
		w.chat(late, "Idempotency-Key", "late").wants(t, 200, "w0", "upstream_stream_interrupted")
	}
	if runs.Load() != 2 {
		t.Errorf("%d runs", runs.Load())
	}
}

func TestKeyAfterTheChainIsGone(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	w := setup(t, func(j *job) { runs.Add(1); tokens(1)(j) })
	for _, r := range []*schemas.Result{
		{RequestID: "old", Status: schemas.StatusCompleted, BodyHash: schemas.BodyHash([]byte(unary)), Response: []byte(`{"from":"result"}`)},
		{RequestID: "failed", Status: schemas.StatusFailed, BodyHash: schemas.BodyHash([]byte(streaming)), Error: schemas.Errorf(schemas.CodeUpstreamTimeout, "late").Encode()},
		{RequestID: "gone", Status: schemas.StatusDeleted},
	} {
		r.V, r.Tenant = schemas.Version, ingest.DefaultTenant
		if err := w.bus.PutResult(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	w.chat(unary, "Llm-Request-Id", "old").wants(t, 200, `{"from":"result"}`)
	w.chat(streaming, "Llm-Request-Id", "old").wants(t, 422)
	w.chat(unary, "Llm-Request-Id", "gone").wants(t, 410, "stream_expired")
	if runs.Load() != 0 {
		t.Errorf("%d runs", runs.Load())
	}
	w.chat(streaming, "Llm-Request-Id", "failed").wants(t, 200, "id: failed-1.0\n")
}

func TestKeysOfTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), func(c *ingest.Config) {
		c.Keys = ring(t, keys.Configured{ID: "a", SHA256: hashOf("secret-a"), Tenant: "a"}, keys.Configured{ID: "b", SHA256: hashOf("secret-b"), Tenant: "b"})
	})
	a := w.chat(streaming, "Idempotency-Key", "k", "Authorization", "Bearer secret-a").wants(t, 200)
	b := w.chat(otherBody, "Idempotency-Key", "k", "Authorization", "Bearer secret-b").wants(t, 200)
	if a.id() == b.id() {
		t.Errorf("both are %s", a.id())
	}
	w.chat(streaming, "Llm-Request-Id", "same", "Authorization", "Bearer secret-a").wants(t, 200)
	w.chat(otherBody, "Llm-Request-Id", "same", "Authorization", "Bearer secret-b").wants(t, 200)
}
