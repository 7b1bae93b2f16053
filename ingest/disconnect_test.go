package ingest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// hang shows one event and then nothing.
func hang(j *job) { j.start(); j.delta(1); j.wait(nil) }

func patience(grace, detached time.Duration) func(*ingest.Config) {
	return func(c *ingest.Config) { c.DisconnectGrace, c.DetachedMax = grace, detached }
}

// leave opens a stream, waits for its first event, and leaves.
func (w *bench) leave(method, path, body string, header ...string) (id string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	response := w.do(ctx, method, path, body, header...)
	if response.StatusCode != http.StatusOK {
		w.t.Fatalf("status %d", response.StatusCode)
	}
	return response.Header.Get("X-Request-Id")
}

func TestLeavingCancels(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(50*time.Millisecond, time.Minute))
	w.cancelled(w.leave("POST", "/v1/chat/completions", streaming))
}

func TestLeavingBeforeTheAnswerCancels(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 1)
	w := setup(t, func(j *job) { jobs <- j; j.wait(nil) }, patience(50*time.Millisecond, time.Minute))
	for _, body := range []string{streaming, unary} {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			r, _ := http.NewRequestWithContext(ctx, "POST", w.url+"/v1/chat/completions", readCloser{newBody(body), http.NoBody})
			if response, err := w.client.Do(r); err == nil {
				_ = response.Body.Close()
			}
		}()
		j := <-jobs
		cancel()
		<-gone
		w.cancelled(j.request.Request)
	}
}

// TestHalfClosed: who closes its sending half counts as gone, but may still read, and must not take a cut answer for a
// whole one, nor an empty 200 for an answer.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 1)
	w := setup(t, func(j *job) { jobs <- j; hang(j) }, patience(50*time.Millisecond, time.Minute))
	for _, body := range []string{streaming, unary} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		in := bufio.NewReader(conn)
		id := (<-jobs).request.Request
		if body == streaming {
			if _, err := in.Peek(1); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		response, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.ReadAll(response.Body)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the answer looks whole (%v)", body, err)
		}
		w.cancelled(id)
	}
}

func TestLeavingDoesNotCancelWhenAskedToContinue(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(20*time.Millisecond, time.Minute))
	for _, header := range [][]string{{"Llm-On-Disconnect", "continue"}, {"Idempotency-Key", "k"}, {"Llm-Request-Id", "mine"}} {
		id := w.leave("POST", "/v1/chat/completions", streaming, header...)
		w.stays(of(id), 200*time.Millisecond)
	}
	id := w.leave("POST", "/v1/chat/completions", streaming, "Llm-Request-Id", "cancel-me", "Llm-On-Disconnect", "cancel")
	w.cancelled(id)
}

func TestContinuingIsBounded(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(10*time.Millisecond, 100*time.Millisecond))
	w.cancelled(w.leave("POST", "/v1/chat/completions", streaming, "Llm-On-Disconnect", "continue"))
}

func TestSecondReaderKeepsTheRequest(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(20*time.Millisecond, time.Minute))
	ctx, cancel := context.WithCancel(t.Context())
	first := w.do(ctx, "POST", "/v1/chat/completions", streaming)
	id := first.Header.Get("X-Request-Id")
	w.leave("GET", "/v1/streams/"+id, "")
	cancel()
	w.stays(of(id), 200*time.Millisecond)
}

func TestReturningWithinTheGraceKeepsTheRequest(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(4*time.Second, time.Minute))
	id := w.leave("POST", "/v1/chat/completions", streaming)
	w.leave("GET", "/v1/streams/"+id, "")
	w.stays(of(id), 5*time.Second)
}

func TestReaderAtAnotherIngestKeepsTheRequest(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	one := setupOn(t, bustest.Connect(t, server, bus.Config{}), hang, patience(time.Second, 4*time.Second))
	two := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil, patience(time.Second, 4*time.Second))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := one.do(ctx, "POST", "/v1/chat/completions", streaming)
	id := first.Header.Get("X-Request-Id")
	away, leave := context.WithCancel(t.Context())
	two.do(away, "GET", "/v1/streams/"+id, "")
	cancel()
	// The second reader is told of again and again, so the first ingest waits as long as it reads.
	one.stays(of(id), 6*time.Second)
	leave()
	one.cancelled(id)
}

func TestReaderAtTheFirstIngestKeepsTheRequestToo(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	one := setupOn(t, bustest.Connect(t, server, bus.Config{}), hang, patience(time.Second, 4*time.Second))
	two := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil, patience(time.Second, 4*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := one.do(ctx, "POST", "/v1/chat/completions", streaming)
	id := first.Header.Get("X-Request-Id")
	two.leave("GET", "/v1/streams/"+id, "")
	one.stays(of(id), 6*time.Second)
}

func TestKilledIngestCancelsNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, patience(3*time.Second, 3*time.Second))
	id := w.leave("POST", "/v1/chat/completions", streaming)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.stays(of(id), 3500*time.Millisecond)
}

func TestReaderThatStopsReadingIsGivenUp(t *testing.T) {
	t.Parallel()
	ids := make(chan string, 1)
	w := setup(t, func(j *job) {
		j.start()
		line := `{"choices":[],"x":"` + strings.Repeat("x", 200<<10) + `"}`
		for !j.fenced && j.ctx.Err() == nil && j.index < 100 {
			j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: []byte(line)})
		}
		ids <- j.request.Request
		j.wait(nil)
	}, patience(20*time.Millisecond, time.Minute), func(c *ingest.Config) { c.WriteTimeout = 200 * time.Millisecond })
	w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	w.cancelled(<-ids)
}
