package ingest_test

import (
	"bufio"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

// A caller who waits is told where it stands: in headers once the status is sent for want of an event, and in comments from
// then on; over NATS with each sign of life. Once a worker has begun nobody is asked any more.
func TestCallersAreToldWhereTheyStand(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.wait(gate); j.start(); j.delta(1); j.end() }, func(c *ingest.Config) {
		c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond
	})
	var asked atomic.Int64
	stop, err := n.bus.OnWaiting(func(id schemas.Identity, answer func(*schemas.Waiting)) {
		asked.Add(1)
		answer(&schemas.Waiting{V: 1, Place: 3, Queued: 40, WaitMS: 11_200})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()

	response := n.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	defer response.Body.Close()
	if got := response.Header; got.Get("Llm-Queue-Position") != "3" || got.Get("Llm-Queue-Wait") != "12" {
		t.Errorf("headers %v", got)
	}
	lines := bufio.NewScanner(response.Body)
	for range 2 {
		if lines.Scan(); lines.Text() != ": queued position=3 of=40 wait=12s" {
			t.Errorf("comment %q", lines.Text())
		}
		if lines.Scan(); lines.Text() != ": hb" {
			t.Errorf("heartbeat %q", lines.Text())
		}
	}
	sub := n.tenant("acme").open(chatSubject, bareStream)
	if m := next(t, sub); string(m.Data) != "\n" || m.Header.Get("Llm-Queue-Position") != "3" || m.Header.Get("Llm-Queue-Wait") != "12" {
		t.Errorf("sign of life %q with %v", m.Data, m.Header)
	}
	close(gate)
	all, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Header.Get(schemas.HeaderFrame) != "" && m.Header.Get("Llm-Queue-Position") != "" {
			t.Errorf("an event has %v", m.Header)
		}
	}
	done := false
	for lines.Scan() {
		done = done || strings.Contains(lines.Text(), "[DONE]")
	}
	if !done {
		t.Error("the answer did not end")
	}
}

// An answer in one piece is waited for without a word, unless the caller asks for responses 102.
func TestCallersOfWholeAnswersMayAskToBeTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prefer string
		told   bool
	}{
		"asked for": {"respond-later, Processing;x=1", true},
		"not":       {"wait=10", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			w := setup(t, func(j *job) { j.wait(gate); j.start(); j.respond(`{"object":"chat.completion","choices":[]}`) }, func(c *ingest.Config) {
				c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond
			})
			stop, err := w.bus.OnWaiting(func(_ schemas.Identity, answer func(*schemas.Waiting)) {
				answer(&schemas.Waiting{V: 1, Place: 3, Queued: 40, WaitMS: 11_200})
			})
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			told := make(chan http.Header, 1000)
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusProcessing {
					told <- http.Header(h).Clone()
				}
				return nil
			}})
			var opening sync.WaitGroup
			opening.Go(func() {
				defer close(gate)
				for n := 0; c.told && n < 3; n++ {
					select {
					case h := <-told:
						if h.Get("Llm-Queue-Position") != "3" || h.Get("Llm-Queue-Wait") != "12" || h.Get("X-Request-Id") == "" {
							t.Errorf("headers %v", h)
						}
					case <-time.After(30 * time.Second):
						t.Error("nothing is told")
						return
					}
				}
			})
			response := w.do(ctx, "POST", "/v1/chat/completions", unary, "Prefer", c.prefer)
			opening.Wait()
			got := read(response)
			if got.status != http.StatusOK || got.header.Get("Llm-Queue-Position") != "" || !c.told && len(told) > 0 {
				t.Errorf("status %d with %v, told %d times", got.status, got.header, len(told))
			}
		})
	}
}

// Who looks for the result of a request that waits is told where it stands.
func TestWhoLooksForAResultIsToldWhereItStands(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.wait(gate); j.start(); j.respond(`{"object":"chat.completion","choices":[]}`) })
	stop, err := w.bus.OnWaiting(func(_ schemas.Identity, answer func(*schemas.Waiting)) {
		answer(&schemas.Waiting{V: 1, Place: 3, Queued: 40, WaitMS: 11_200})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	accepted := read(w.do(t.Context(), "POST", "/v1/chat/completions", unary, "Prefer", "respond-async", schemas.HeaderRequestID, "waits"))
	if accepted.status != http.StatusAccepted {
		t.Fatalf("status %d", accepted.status)
	}
	got := read(w.do(t.Context(), "GET", "/v1/streams/waits/result", ""))
	if got.status != http.StatusAccepted || got.header.Get("Llm-Queue-Position") != "3" || got.header.Get("Llm-Queue-Wait") != "12" {
		t.Errorf("status %d with %v", got.status, got.header)
	}
	close(gate)
}

// Who is not known to wait is told nothing.
func TestNoPlaceIsMadeUp(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.wait(gate); j.start(); j.delta(1); j.end() }, func(c *ingest.Config) {
		c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond
	})
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	defer response.Body.Close()
	close(gate)
	got := read(response)
	if got.header.Get("Llm-Queue-Position") != "" || strings.Contains(got.body, "queued") {
		t.Errorf("headers %v, body %q", got.header, got.body)
	}
}
