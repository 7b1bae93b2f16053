package ingest_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
)

const (
	abandonedEachWay = 16
	// What may be left is far less than what one of them leaves each time would be.
	goroutineSlack = 2
	byteSlack      = 64 << 10
)

// abandonments are the ways to leave without an answer, or to hold on to one that is not taken.
func abandonments(w *bench) map[string]func() {
	flooded := strings.Replace(streaming, "hi", "flood", 1)
	whole := post(streaming)
	begun := func() *raw { // a stream that has shown its first event
		conn := w.dial("127.0.0.1")
		conn.send(whole)
		if response := conn.response(); response.StatusCode != http.StatusOK {
			w.t.Errorf("status %d", response.StatusCode)
		}
		return conn
	}
	reset := func(conn *raw) {
		_ = conn.Conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	// held waits for the server to give the connection up. What it still sends is thrown away.
	held := func(conn *raw) { _, _ = io.Copy(io.Discard, conn.r) }
	return map[string]func(){
		"in the header":         func() { c := w.dial("127.0.0.1"); c.send(whole[:50]); _ = c.Close() },
		"in the header, held":   func() { c := w.dial("127.0.0.1"); c.send(whole[:50]); held(c) },
		"in the body":           func() { c := w.dial("127.0.0.1"); c.send(whole[:len(whole)-9]); _ = c.Close() },
		"in the body, held":     func() { c := w.dial("127.0.0.1"); c.send(whole[:len(whole)-9]); held(c) },
		"before acceptance":     func() { c := w.dial("127.0.0.1"); c.send(whole); reset(c) },
		"unary":                 func() { c := w.dial("127.0.0.1"); c.send(post(unary)); _ = c.Close() },
		"in the middle":         func() { _ = begun().Close() },
		"in the middle, reset":  func() { reset(begun()) },
		"one half closed":       func() { c := begun(); _ = c.Conn.(*net.TCPConn).CloseWrite(); held(c) },
		"after an answer, held": func() { c := w.dial("127.0.0.1"); c.ask(models).wants(w.t, 200); held(c) },
		"a resumed one": func() {
			c := w.dial("127.0.0.1")
			c.send(whole)
			id := c.response().Header.Get("X-Request-Id")
			second := w.dial("127.0.0.1")
			second.send("GET /v1/streams/" + id + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
			second.response()
			_ = second.Close()
			_ = c.Close()
		},
		"nothing read": func() {
			c := w.dial("127.0.0.1")
			_ = c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			c.send(post(flooded))
			c.response() // its first piece
			// The server cuts it, which a caller that does not read cannot see: the others of this round wait for it.
		},
	}
}

// Whatever callers do, in the end they leave nothing: no goroutine, no memory, no place. This test does not run beside
// others, because it counts what is there.
func TestAbandonedCallersLeaveNothing(t *testing.T) {
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	places := abandonedEachWay * len(abandonments(nil))
	w := setup(t, func(j *job) {
		if strings.Contains(string(j.request.Body), "flood") {
			flood(make(chan string, 1), 40)(j) // no more than the store of a test has room for
			return
		}
		j.start()
		j.delta(1)
	}, patience(20*time.Millisecond, 50*time.Millisecond), func(c *ingest.Config) {
		// Long enough for callers that do what they should, all at once.
		c.WriteTimeout, c.BodyTimeout, c.HeaderTimeout, c.IdleTimeout = 2*time.Second, 2*time.Second, 2*time.Second, 2*time.Second
		c.MaxStreams = places
	})
	round := func(n int) {
		var leaving sync.WaitGroup
		for name, abandon := range abandonments(w) {
			times := n
			if name == "nothing read" {
				times = min(n, 2) // each fills all buffers on its way
			}
			for range times {
				leaving.Go(abandon)
			}
		}
		leaving.Wait()
	}
	for range 2 { // maps, pools and heaps of timers grow to what a round needs
		round(abandonedEachWay)
		quiet(t)
	}
	// What callers leave is left by every round. What a round merely needs, because more of it happened at once than before, is
	// not: then the next one needs no more.
	for range 3 {
		goroutines, held := quiet(t)
		round(abandonedEachWay)
		nowGoroutines, nowHeld := quiet(t)
		t.Logf("goroutines %d, then %d; bytes of the door %d, then %d", goroutines, nowGoroutines, held, nowHeld)
		if nowGoroutines <= goroutines+goroutineSlack && nowHeld <= held+byteSlack {
			return
		}
	}
	t.Error("each round leaves more")
}

// quiet waits until no caller is connected and no cancel is under way, for as long as one may take to begin, and returns
// how many goroutines there are and how much memory the door holds.
func quiet(t *testing.T) (goroutines int, held int64) {
	t.Helper()
	stacks := make([]byte, 8<<20)
	deadline := time.Now().Add(time.Minute)
	for busy := time.Now(); time.Since(busy) < 200*time.Millisecond; <-time.After(10 * pollInterval) {
		if n := serving(stacks); n > 0 {
			busy = time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections and cancels are not served to their end", serving(stacks))
		}
	}
	runtime.GC()
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1<<16)
	n, ok := runtime.MemProfile(records, false)
	if !ok {
		t.Fatalf("the profile has %d records", n)
	}
	for _, record := range records[:n] {
		if atDoor(record.Stack()) {
			held += record.InUseBytes()
		}
	}
	return runtime.NumGoroutine(), held
}

// serving is the number of connections that net/http serves, and of cancels of abandoned requests.
func serving(stacks []byte) int {
	all := stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(all, []byte("net/http.(*conn).serve(")) + bytes.Count(all, []byte("ingest.(*Ingest).abandon("))
}

// atDoor reports whether an allocation was made for a caller.
func atDoor(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, "net/http.(*conn).") || strings.HasPrefix(frame.Function, "github.com/weir-llm/weir/ingest.(") {
			return true
		}
		if !more {
			return false
		}
	}
}
