package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

func connect(t *testing.T) (*client.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, ctx
}

func words(body string) client.Request {
	return client.Request{Tenant: "acme", Body: []byte(`{"model":"echo","messages":[],` + body + `}`)}
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

func TestStream(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	got, err := read(c.Stream(ctx, words(`"stream":true,"words":["a","b","c"]`)))
	check(t, got, err, `0 {"word":"a"}`, `1 {"word":"b"}`, `2 {"word":"c"}`)

	got, err = read(c.Stream(ctx, words(`"words":["a","b"]`)))
	check(t, got, err, `0 {"answer": "a b"}`)
}

func TestStreamEndsWithTheErrorAfterWhatWasSaid(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	got, err := read(c.Stream(ctx, words(`"stream":true,"words":["a"],"fail":true`)))
	if code(err) != schemas.CodeUpstreamInterrupted {
		t.Errorf("error %v, want %s", err, schemas.CodeUpstreamInterrupted)
	}
	check(t, got, nil, `0 {"word":"a"}`)
}

func TestResumeFromAnyIndexLiveAndLater(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	id, err := c.Send(ctx, words(`"stream":true,"words":["a","b"]`))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{`0 {"word":"a"}`, `1 {"word":"b"}`}
	got, err := read(c.Resume(ctx, "acme", id, 0)) // queued or running
	check(t, got, err, all...)
	if _, err := c.Wait(ctx, "acme", id); err != nil {
		t.Fatal(err)
	}
	for from := range 4 {
		got, err := read(c.Resume(ctx, "acme", id, uint64(from)))
		check(t, got, err, all[min(from, len(all)):]...)
	}
}

func TestResumeTakesUpABrokenStream(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	request := words(`"stream":true,"words":["a","b","c","d"]`)
	request.ID = "broken-" + unique()
	next := uint64(0)
	for event, err := range c.Stream(ctx, request) {
		if err != nil {
			t.Fatal(err)
		}
		if next = event.Cursor.Index + 1; next == 2 {
			break
		}
	}
	got, err := read(c.Resume(ctx, "acme", request.ID, next))
	check(t, got, err, `2 {"word":"c"}`, `3 {"word":"d"}`)
}

func TestSendIsIdempotentOnTheID(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	request := words(`"stream":true,"words":["a"]`)
	request.ID = "once-" + unique()
	other := words(`"stream":true,"words":["other"]`)
	other.ID = request.ID
	for range 2 { // the first time while it is queued or runs, then when it has ended
		for range 2 {
			if id, err := c.Send(ctx, request); err != nil || id != request.ID {
				t.Fatalf("send: %q, %v", id, err)
			}
		}
		if _, err := c.Send(ctx, other); code(err) != schemas.CodeIdempotencyMismatch {
			t.Errorf("another body under the same id: %v", err)
		}
		if _, err := read(c.Stream(ctx, other)); code(err) != schemas.CodeIdempotencyMismatch {
			t.Errorf("stream of another body under the same id: %v", err)
		}
		got, err := read(c.Stream(ctx, request))
		check(t, got, err, `0 {"word":"a"}`)
		if r, err := c.Wait(ctx, "acme", request.ID); err != nil || r.Attempts != 1 {
			t.Errorf("result %+v, %v, want one attempt", r, err)
		}
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	if _, err := c.Result(ctx, "acme", "never-sent"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("result of a request that was never sent: %v", err)
	}
	id, err := c.Send(ctx, words(`"words":["hello"]`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(ctx, "acme", id)
	if err != nil || r.Status != schemas.StatusCompleted || !strings.Contains(string(r.Response), "hello") || r.Model != "echo" {
		t.Errorf("result %+v, %v", r, err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, "acme", "never-sent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v, want the end of its context", err)
	}
	if _, err := read(c.Resume(ctx, "acme", "never-sent", 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("resume: %v, want the end of its context", err)
	}
}

// Nobody owns the first request and the owner of the second ignores the hint, so the cancel is written through the fence.
func TestCancelIsNeverLost(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	for _, body := range []string{`"queue":true`, `"stream":true,"words":["a"],"hang":true`} {
		id, err := c.Send(ctx, words(body))
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		var streamed error
		reading.Go(func() { _, streamed = read(c.Resume(ctx, "acme", id, 0)) })
		if err := c.Cancel(ctx, "acme", id); err != nil {
			t.Fatalf("cancel: %v", err)
		}
		reading.Wait()
		if code(streamed) != schemas.CodeCancelled {
			t.Errorf("the stream ended with %v, want %s", streamed, schemas.CodeCancelled)
		}
		if err := c.Cancel(ctx, "acme", id); err != nil {
			t.Errorf("cancel again: %v", err)
		}
	}
}

func TestLargeBodyAndTail(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	tail, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now().Add(-time.Second)
	request := words(`"words":["x"],"padding":"` + strings.Repeat("p", schemas.InlineBytes) + `"`)
	request.Tenant = "tail-" + unique()
	id, err := c.Send(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	for r, err := range c.Tail(tail, request.Tenant, began) {
		if err != nil || r.RequestID != id || len(r.Request) < schemas.InlineBytes {
			t.Fatalf("tail: %v", err)
		}
		break
	}
	n := 0
	for r, err := range c.History(ctx, request.Tenant, began) {
		if err != nil || r.RequestID != id {
			t.Fatalf("history: %v", err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("history has %d results, want 1", n)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t)
	body := []byte(`{"model":"echo"}`)
	for name, test := range map[string]struct {
		request client.Request
		want    schemas.Code
	}{
		"tenant":        {client.Request{Tenant: "a.b", Body: body}, schemas.CodeInvalidValue},
		"id":            {client.Request{ID: "a b", Body: body}, schemas.CodeInvalidValue},
		"reserved id":   {client.Request{ID: "s17", Body: body}, schemas.CodeInvalidValue},
		"no body":       {client.Request{Model: "echo"}, schemas.CodeInvalidJSON},
		"not JSON":      {client.Request{Model: "echo", Body: []byte("{")}, schemas.CodeInvalidJSON},
		"no model":      {client.Request{Body: []byte(`{}`)}, schemas.CodeMissingParameter},
		"too large":     {client.Request{Body: make([]byte, schemas.MaxBodyBytes+1)}, schemas.CodeRequestTooLarge},
		"priority":      {client.Request{Body: body, Priority: "first"}, schemas.CodeInvalidValue},
		"a header":      {client.Request{Body: body, Header: map[string]string{schemas.HeaderOnDisconnect: "maybe"}}, schemas.CodeInvalidValue},
		"a wildcard id": {client.Request{ID: ">", Body: body}, schemas.CodeInvalidValue},
	} {
		if _, err := c.Send(ctx, test.request); code(err) != test.want {
			t.Errorf("%s: send: %v, want %s", name, err, test.want)
		}
		if _, err := read(c.Stream(ctx, test.request)); code(err) != test.want {
			t.Errorf("%s: stream: %v, want %s", name, err, test.want)
		}
	}
	if _, err := read(c.Resume(ctx, "acme", "*", 0)); code(err) != schemas.CodeInvalidValue {
		t.Errorf("resume of a wildcard: %v", err)
	}
	if err := c.Cancel(ctx, "acme", ">"); code(err) != schemas.CodeInvalidValue {
		t.Errorf("cancel of a wildcard: %v", err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := client.Connect(t.Context(), client.Config{}); err == nil {
		t.Error("no error without an address")
	}
	if _, err := client.Connect(t.Context(), client.Config{URL: "nats://127.0.0.1:1"}); err == nil {
		t.Error("no error although nobody answers")
	}
}

func unique() string { return fmt.Sprint(time.Now().UnixNano()) }
