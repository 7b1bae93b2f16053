package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// patience is how long a test waits for what must come, on a machine that is busy with something else too.
const patience = time.Minute

// way is a transport, with where it connects.
type way struct {
	name string
	to   string // the URL
	cfg  client.Config
}

func ways() []way {
	return []way{
		{"trusted", serverURL, client.Config{Tenant: "acme"}},
		{"tenant", serverURL, client.Config{Tenant: "acme", APIKey: apiKey}},
		{"http", doorURL, client.Config{Tenant: "acme", APIKey: apiKey}},
	}
}

// overEach runs a test over each transport.
func overEach(t *testing.T, test func(t *testing.T, ctx context.Context, c *client.Client)) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			c, ctx := w.connect(t, w.to)
			test(t, ctx, c)
		})
	}
}

func (w way) connect(t *testing.T, url string) (*client.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	w.cfg.URL = url
	c, err := client.Connect(ctx, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, ctx
}

func words(body string) client.Request {
	return client.Request{Body: []byte(`{"model":"echo","messages":[{"role":"user","content":"hi"}],` + body + `}`)}
}

// read gathers events as "index data" until the error or the end.
func read(events iter.Seq2[client.Event, error]) (got []string, err error) {
	for event, err := range events {
		if err != nil {
			return got, err
		}
		got = append(got, fmt.Sprint(event.Cursor.Index, " ", string(event.Data)))
	}
	return got, nil
}

func check(t *testing.T, got []string, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Errorf("error: %v", err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func code(err error) schemas.Code {
	if e, ok := errors.AsType[*schemas.Error](err); ok {
		return e.Code
	}
	return ""
}

func unique() string { return fmt.Sprint(time.Now().UnixNano()) }

func TestStream(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		got, err := read(c.Stream(ctx, words(`"stream":true,"words":["a","b","c"]`)))
		check(t, got, err, `0 {"word":"a"}`, `1 {"word":"b"}`, `2 {"word":"c"}`)

		got, err = read(c.Stream(ctx, words(`"words":["a","b"]`)))
		check(t, got, err, `0 {"answer": "a b"}`)
	})
}

func TestComplete(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		answer, err := c.Complete(ctx, words(`"words":["a","b"]`))
		if err != nil || string(answer.Data) != `{"answer": "a b"}` || answer.Cursor.Index != 0 || answer.Cursor.Request == "" {
			t.Errorf("answer %q at %v, %v", answer.Data, answer.Cursor, err)
		}
		if _, err := c.Complete(ctx, words(`"words":["a"],"fail":true`)); code(err) != schemas.CodeUpstreamInterrupted {
			t.Errorf("a failed request: %v", err)
		}
		if _, err := c.Complete(ctx, words(`"stream":true`)); code(err) != schemas.CodeInvalidValue {
			t.Errorf("a request for a stream: %v", err)
		}
	})
}

func TestStreamEndsWithTheErrorAfterWhatWasSaid(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		got, err := read(c.Stream(ctx, words(`"stream":true,"words":["a"],"fail":true`)))
		if code(err) != schemas.CodeUpstreamInterrupted || !strings.Contains(err.Error(), "the model broke off") {
			t.Errorf("error %v, want %s", err, schemas.CodeUpstreamInterrupted)
		}
		check(t, got, nil, `0 {"word":"a"}`)
	})
}

func TestResumeFromAnyIndexLiveAndLater(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		id, err := c.Send(ctx, words(`"stream":true,"words":["a","b"]`))
		if err != nil {
			t.Fatal(err)
		}
		all := []string{`0 {"word":"a"}`, `1 {"word":"b"}`}
		got, err := read(c.Resume(ctx, "", id, 0)) // queued or running
		check(t, got, err, all...)
		if _, err := c.Wait(ctx, "acme", id); err != nil {
			t.Fatal(err)
		}
		for from := range 3 {
			got, err := read(c.Resume(ctx, "acme", id, uint64(from)))
			check(t, got, err, all[from:]...)
		}
	})
}

// A second client stands for a program that was started again.
func TestResumeTakesUpABrokenStream(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			first, ctx := w.connect(t, w.to)
			request := words(`"stream":true,"words":["a","b","c","d"],"pace":5`)
			request.ID = "broken-" + w.name + unique()
			next := uint64(0)
			for event, err := range first.Stream(ctx, request) {
				if err != nil {
					t.Fatal(err)
				}
				if next = event.Cursor.Index + 1; next == 2 {
					break
				}
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			again, ctx := w.connect(t, w.to)
			got, err := read(again.Resume(ctx, "", request.ID, next))
			check(t, got, err, `2 {"word":"c"}`, `3 {"word":"d"}`)
		})
	}
}

// The connection is cut again and again while the answer comes.
func TestStreamOutlastsItsConnections(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			scheme, _, _ := strings.Cut(w.to, "://")
			proxy := bustest.NewProxy(t, strings.TrimPrefix(w.to, "http://"))
			c, ctx := w.connect(t, strings.Replace(proxy.URL(), "nats", scheme, 1))
			var texts, want []string
			for i := range 20 {
				texts = append(texts, fmt.Sprintf("%q", fmt.Sprint("w", i)))
				want = append(want, fmt.Sprintf(`%d {"word":%s}`, i, texts[i]))
			}
			var got []string
			for event, err := range c.Stream(ctx, words(`"stream":true,"pace":5,"words":[`+strings.Join(texts, ",")+`]`)) {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, fmt.Sprint(event.Cursor.Index, " ", string(event.Data))); len(got)%6 == 1 {
					proxy.Cut()
				}
			}
			check(t, got, nil, want...)

			seen := proxy.At(bustest.ToServer, `"x":"unary"`, bustest.Pass)
			var cutting sync.WaitGroup
			cutting.Go(func() {
				select {
				case <-seen:
					proxy.Cut()
				case <-ctx.Done():
					t.Error("the request did not come by")
				}
			})
			answer, err := c.Complete(ctx, words(`"pace":5,"words":["a","b"],"x":"unary"`))
			cutting.Wait()
			if err != nil || string(answer.Data) != `{"answer": "a b"}` {
				t.Errorf("a cut unary request: %q, %v", answer.Data, err)
			}
		})
	}
}

func TestSendIsIdempotentOnTheIDAndTheKey(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		for name, set := range map[string]func(r *client.Request, to string){
			"id":  func(r *client.Request, to string) { r.ID = to },
			"key": func(r *client.Request, to string) { r.IdempotencyKey = "Invoice #4711 " + to },
		} {
			request, other := words(`"stream":true,"words":["a"]`), words(`"stream":true,"words":["other"]`)
			to := "once-" + unique()
			set(&request, to)
			set(&other, to)
			first := ""
			for range 2 { // the first time while it is queued or runs, then when it has ended
				for range 2 {
					id, err := c.Send(ctx, request)
					if err != nil || first != "" && id != first {
						t.Fatalf("%s: send: %q, %v", name, id, err)
					}
					first = id
				}
				if _, err := c.Send(ctx, other); code(err) != schemas.CodeIdempotencyMismatch {
					t.Errorf("%s: another body: %v", name, err)
				}
				if _, err := read(c.Stream(ctx, other)); code(err) != schemas.CodeIdempotencyMismatch {
					t.Errorf("%s: stream of another body: %v", name, err)
				}
				got, err := read(c.Stream(ctx, request))
				check(t, got, err, `0 {"word":"a"}`)
				if r, err := c.Wait(ctx, "", first); err != nil || r.Attempts != 1 {
					t.Errorf("%s: result %+v, %v, want one attempt", name, r, err)
				}
			}
		}
	})
}

func TestARunThatFailedBeforeItsFirstEventIsRepeated(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		request := words(`"stream":true,"words":["a"],"flaky":true`)
		request.ID = "flaky-" + unique()
		if _, err := read(c.Stream(ctx, request)); code(err) != schemas.CodeUpstreamError {
			t.Fatalf("the first run: %v", err)
		}
		if _, err := c.Wait(ctx, "", request.ID); err != nil {
			t.Fatal(err)
		}
		for event, err := range c.Stream(ctx, request) {
			if err != nil || event.Cursor.Request != request.ID+"-1" {
				t.Errorf("the second run: %v at %v", err, event.Cursor)
			}
		}
		if id, err := c.Send(ctx, request); err != nil || id != request.ID+"-1" {
			t.Errorf("send again: %q, %v", id, err)
		}
	})
}

func TestHeadersTravel(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		request := words(`"echo":true`)
		request.Priority, request.Deadline = schemas.PriorityBatch, time.UnixMilli(4_000_000_000_000)
		request.Header = map[string]string{schemas.HeaderCache: "refresh"}
		answer, err := c.Complete(ctx, request)
		if want := `{"op":"chat","priority":"batch","deadline":4000000000000,"cache":"refresh"}`; err != nil || string(answer.Data) != want {
			t.Errorf("%s, %v, want %s", answer.Data, err, want)
		}
	})
}

func TestOperations(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		completion := client.Request{Op: schemas.OpCompletion, Body: []byte(`{"model":"echo","prompt":"hi","stream":true,"words":["a","b"]}`)}
		got, err := read(c.Stream(ctx, completion))
		check(t, got, err, `0 {"word":"a"}`, `1 {"word":"b"}`)
		embedding := client.Request{Op: schemas.OpEmbedding, Body: []byte(`{"model":"echo","input":"hi","echo":true}`)}
		answer, err := c.Complete(ctx, embedding)
		if err != nil || !strings.Contains(string(answer.Data), `"op":"embedding"`) {
			t.Errorf("embedding: %s, %v", answer.Data, err)
		}
	})
}

func TestResult(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		if _, err := c.Result(ctx, "", "never-sent"); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("result of a request that was never sent: %v", err)
		}
		id, err := c.Send(ctx, words(`"words":["hello"]`))
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Wait(ctx, "", id)
		if err != nil || r.Status != schemas.StatusCompleted || !strings.Contains(string(r.Response), "hello") || r.RequestID != id || r.Tenant != "acme" || r.Usage.TotalTokens != 1 {
			t.Errorf("result %+v, %v", r, err)
		}
		if id, err = c.Send(ctx, words(`"words":["a"],"fail":true`)); err != nil {
			t.Fatal(err)
		}
		r, err = c.Wait(ctx, "", id)
		if err != nil || r.Status != schemas.StatusFailed || !strings.Contains(string(r.Error), `{"error":{`) {
			t.Errorf("result of a failure %+v, %v", r, err)
		}
	})
}

func TestEndsWithItsContext(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		id, err := c.Send(ctx, words(`"queue":true`))
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		var calls sync.WaitGroup
		defer calls.Wait()
		for name, call := range map[string]func() error{
			"result":   func() error { _, err := c.Wait(short, "", id); return err },
			"resume":   func() error { _, err := read(c.Resume(short, "", id, 0)); return err },
			"stream":   func() error { _, err := read(c.Stream(short, words(`"stream":true,"queue":true`))); return err },
			"complete": func() error { _, err := c.Complete(short, words(`"queue":true`)); return err },
		} {
			calls.Go(func() {
				if err := call(); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v, want the end of its context", name, err)
				}
			})
		}
	})
}

// Nobody owns the first request and the owner of the second ignores the hint, so the cancel is written through the fence.
func TestCancelIsNeverLost(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		for _, body := range []string{`"queue":true`, `"stream":true,"words":["a"],"hang":true`} {
			id, err := c.Send(ctx, words(body))
			if err != nil {
				t.Fatal(err)
			}
			var reading sync.WaitGroup
			var streamed error
			reading.Go(func() { _, streamed = read(c.Resume(ctx, "", id, 0)) })
			if err := c.Cancel(ctx, "", id); err != nil {
				t.Fatalf("cancel: %v", err)
			}
			reading.Wait()
			if code(streamed) != schemas.CodeCancelled {
				t.Errorf("the stream ended with %v, want %s", streamed, schemas.CodeCancelled)
			}
			if err := c.Cancel(ctx, "", id); err != nil {
				t.Errorf("cancel again: %v", err)
			}
		}
	})
}

func TestLargeBody(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		answer, err := c.Complete(ctx, words(`"words":["x"],"padding":"`+strings.Repeat("p", schemas.InlineBytes)+`"`))
		if err != nil || string(answer.Data) != `{"answer": "x"}` {
			t.Errorf("%q, %v", answer.Data, err)
		}
		text := strings.Repeat("y", 2*schemas.InlineBytes)
		got, err := read(c.Stream(ctx, words(`"stream":true,"words":["a","`+text+`","z"]`)))
		check(t, got, err, `0 {"word":"a"}`, `1 {"word":"`+text+`"}`, `2 {"word":"z"}`)
	})
}

func TestBadRequestsAreRefused(t *testing.T) {
	body := []byte(`{"model":"echo"}`)
	refused := map[string]struct {
		request client.Request
		want    schemas.Code
	}{
		"tenant":        {client.Request{Tenant: "a.b", Body: body}, schemas.CodeInvalidValue},
		"id":            {client.Request{ID: "a b", Body: body}, schemas.CodeInvalidValue},
		"reserved id":   {client.Request{ID: "s17", Body: body}, schemas.CodeInvalidValue},
		"id and key":    {client.Request{ID: "a", IdempotencyKey: "b", Body: body}, schemas.CodeInvalidValue},
		"a long key":    {client.Request{IdempotencyKey: strings.Repeat("k", 256), Body: body}, schemas.CodeInvalidValue},
		"no body":       {client.Request{Model: "echo"}, schemas.CodeInvalidJSON},
		"not JSON":      {client.Request{Model: "echo", Body: []byte("{")}, schemas.CodeInvalidJSON},
		"nested":        {client.Request{Model: "echo", Body: bytes.Repeat([]byte("["), schemas.MaxBodyBytes)}, schemas.CodeInvalidJSON},
		"no model":      {client.Request{Body: []byte(`{}`)}, schemas.CodeMissingParameter},
		"too large":     {client.Request{Body: make([]byte, schemas.MaxBodyBytes+1)}, schemas.CodeRequestTooLarge},
		"priority":      {client.Request{Body: body, Priority: "first"}, schemas.CodeInvalidValue},
		"a header":      {client.Request{Body: body, Header: map[string]string{schemas.HeaderOnDisconnect: "maybe"}}, schemas.CodeInvalidValue},
		"a wildcard id": {client.Request{ID: ">", Body: body}, schemas.CodeInvalidValue},
	}
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		for name, test := range refused {
			if _, err := c.Send(ctx, test.request); code(err) != test.want {
				t.Errorf("%s: send: %v, want %s", name, err, test.want)
			}
			if _, err := read(c.Stream(ctx, test.request)); code(err) != test.want {
				t.Errorf("%s: stream: %v, want %s", name, err, test.want)
			}
		}
		if _, err := read(c.Resume(ctx, "", "*", 0)); code(err) != schemas.CodeInvalidValue {
			t.Errorf("resume of a wildcard: %v", err)
		}
		if err := c.Cancel(ctx, "", ">"); code(err) != schemas.CodeInvalidValue {
			t.Errorf("cancel of a wildcard: %v", err)
		}
	})
}

// A tenant's client is told at once that it acts for nobody else, and hears of no request but its own.
func TestATenantIsBound(t *testing.T) {
	t.Parallel()
	trusted, ctx := ways()[0].connect(t, serverURL)
	foreign := words(`"words":["secret"]`)
	foreign.Tenant, foreign.ID = "other", "foreign-"+unique()
	if _, err := trusted.Complete(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	for _, w := range ways()[1:] {
		c, ctx := w.connect(t, w.to)
		if _, err := c.Send(ctx, foreign); code(err) != schemas.CodeInvalidValue {
			t.Errorf("%s: send: %v", w.name, err)
		}
		for name, err := range map[string]error{
			"resume": func() error { _, err := read(c.Resume(ctx, "", foreign.ID, 0)); return err }(),
			"cancel": c.Cancel(ctx, "", foreign.ID),
		} {
			if code(err) != schemas.CodeStreamNotFound {
				t.Errorf("%s: %s of another tenant's request: %v", w.name, name, err)
			}
		}
		if _, err := c.Result(ctx, "", foreign.ID); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%s: result of another tenant's request: %v", w.name, err)
		}
		if _, err := c.Wait(ctx, "", foreign.ID); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%s: wait for another tenant's request: %v", w.name, err)
		}
		for _, err := range c.Tail(ctx, "", time.Time{}) {
			if code(err) != schemas.CodeUnsupported {
				t.Errorf("%s: tail: %v", w.name, err)
			}
		}
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		var streams sync.WaitGroup
		for i := range 20 {
			streams.Go(func() {
				got, err := read(c.Stream(ctx, words(fmt.Sprintf(`"stream":true,"pace":1,"words":["%d","b","c"]`, i))))
				if want := fmt.Sprintf(`0 {"word":"%d"}`, i); err != nil || len(got) != 3 || !slices.Contains(got, want) {
					t.Errorf("stream %d: %v, %v", i, got, err)
				}
			})
		}
		streams.Wait()
	})
}
