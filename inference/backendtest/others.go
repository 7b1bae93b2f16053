package backendtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// nothingLeft runs calls that end in every way and looks for goroutines that they left. Connections are the backend's,
// so it is closed first.
func nothingLeft(t *testing.T, s Subject) {
	cutShort, held, refused := Whole(), Whole(), Whole()
	cutShort.Fault, cutShort.At = Cut, 1
	held.Fault, held.At = Hold, 1
	refused.Refusal = Internal
	for name, script := range map[string]Script{"whole": Whole(), "cut": cutShort, "held": held, "refused": refused} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := s.started(t, script)
			label := t.Name()
			done := make(chan struct{})
			go pprof.Do(t.Context(), pprof.Labels("backendtest", label), func(context.Context) { // goroutines inherit labels
				defer close(done)
				ctx, cancel := context.WithTimeout(t.Context(), 10*brief)
				defer cancel()
				s.ask(ctx, t, b, s.request(true))
				for range b.Generate(ctx, s.request(true)) {
					break
				}
			})
			<-done
			if closer, ok := b.(io.Closer); ok {
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
			noGoroutines(t, label)
		})
	}
}

// noGoroutines waits until none with the label is left.
func noGoroutines(t *testing.T, label string) {
	t.Helper()
	var stacks bytes.Buffer
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		stacks.Reset()
		if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(stacks.String(), `"backendtest":"`+label+`"`) {
			return
		}
	}
	t.Errorf("goroutines are left:\n%s", stacks.String())
}

func models(t *testing.T, s Subject) {
	want := s.Models
	if want == nil {
		want = []string{"m1", "m2"}
	}
	b, server := s.started(t, Whole())
	names, err := b.Models(t.Context())
	if diff := cmp.Diff(want, names); diff != "" || err != nil {
		t.Errorf("%v, models (-want +got):\n%s", err, diff)
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("not healthy: %v", err)
	}
	if s.local() {
		return
	}
	if got := server.Asked(); len(got) > 0 {
		t.Errorf("a check of health ran the model %q", got)
	}
	script := Whole()
	script.Refusal = Internal
	sick, _ := s.started(t, script)
	if sick.Health(t.Context()) == nil {
		t.Error("a server that fails is healthy")
	}
	if _, err := sick.Models(t.Context()); err == nil || schemas.AsError(err).Code == schemas.CodeInternal {
		t.Errorf("models of a server that fails: %v", err)
	}
}

func embeddings(t *testing.T, s Subject) {
	ask := func(b inference.Backend, format string) ([]byte, error) {
		r := s.request(false)
		r.Op, r.Body = schemas.OpEmbedding, []byte(`{"model":"m","input":["Hello world"]`+format+`}`)
		return b.Embed(t.Context(), r)
	}
	b, server := s.started(t, Whole())
	floats, err := ask(b, "")
	if !s.Embeds {
		if err == nil || schemas.AsError(err).Code != schemas.CodeUnsupported || !s.local() && len(server.Asked()) > 0 {
			t.Errorf("%v, want %s and no call", err, schemas.CodeUnsupported)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := ask(b, `,"encoding_format":"base64"`)
	if err != nil {
		t.Fatal(err)
	}
	vector := gjson.GetBytes(floats, "data.0.embedding").Array()
	raw, err := base64.StdEncoding.DecodeString(gjson.GetBytes(encoded, "data.0.embedding").Str)
	if err != nil || len(vector) == 0 || len(raw) != 4*len(vector) {
		t.Fatalf("%v: vectors %s and %s", err, floats, encoded)
	}
	for i, value := range vector {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])); got != float32(value.Num) {
			t.Errorf("value %d is %v in one form and %v in the other", i, value.Num, got)
		}
	}
	for _, answer := range [][]byte{floats, encoded} {
		if gjson.GetBytes(answer, "model").Str != "m" || gjson.GetBytes(answer, "object").Str != "list" || bytes.ContainsAny(answer, "\r\n") {
			t.Errorf("this is no answer to an embedding request: %s", answer)
		}
	}
	if s.local() {
		return
	}
	script := Whole()
	script.Refusal, script.RetryAfter = RateLimit, 7*time.Second
	if code, ok := s.code(RateLimit); ok {
		b, _ = s.started(t, script)
		if _, err := ask(b, ""); err == nil || schemas.AsError(err).Code != code || schemas.AsError(err).RetryAfter != script.RetryAfter {
			t.Errorf("error %v, want %s after %v", err, code, script.RetryAfter)
		}
	}
}

// otherOps are refused without a call.
func otherOps(t *testing.T, s Subject) {
	b, server := s.started(t, Whole())
	r := s.request(true)
	r.Op = "telepathy"
	if a := s.ask(t.Context(), t, b, r); a.err == nil || a.err.Code != schemas.CodeUnsupported || len(a.events) > 0 {
		t.Errorf("%d events, then %v; want %s", len(a.events), a.err, schemas.CodeUnsupported)
	}
	if !s.local() && len(server.Asked()) > 0 {
		t.Error("the server was called for it")
	}
	if capabilities := b.Capabilities(); !cmp.Equal(capabilities, b.Capabilities()) {
		t.Error("the capabilities change")
	}
}
