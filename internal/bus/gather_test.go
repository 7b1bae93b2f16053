package bus_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
)

// takes is a connection that takes what is written to it once the test says so.
type takes struct {
	net.Conn
	open chan struct{}
	took [][]byte
}

func (c *takes) Write(p []byte) (int, error) {
	<-c.open
	c.took = append(c.took, bytes.Clone(p))
	return len(p), nil
}

func gathering(t *testing.T) (*takes, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { _ = there.Close() })
	under := &takes{Conn: here, open: make(chan struct{})}
	return under, bus.NewGatherConn(under)
}

func put(t *testing.T, conn net.Conn, p []byte) {
	t.Helper()
	if n, err := conn.Write(p); n != len(p) || err != nil {
		t.Errorf("wrote %d of %d bytes: %v", n, len(p), err)
	}
}

func TestWritesLeaveTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under, conn := gathering(t)
		put(t, conn, []byte("first "))
		synctest.Wait() // it is under way
		for range 100 {
			put(t, conn, []byte("more "))
		}
		close(under.open)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if got := len(under.took); got != 2 {
			t.Errorf("101 writes left as %d, want the first and all others together", got)
		}
		if got, want := bytes.Join(under.took, nil), append([]byte("first "), bytes.Repeat([]byte("more "), 100)...); !bytes.Equal(got, want) {
			t.Errorf("what left is %q", got)
		}
	})
}

func TestWhoWritesWaitsForAServerThatIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under, conn := gathering(t)
		put(t, conn, []byte("under way"))
		synctest.Wait()
		put(t, conn, make([]byte, bus.GatherBytes)) // at the limit, which stops the next
		put(t, conn, nil)                           // but not nothing
		var waited atomic.Bool
		go func() {
			put(t, conn, []byte("beyond"))
			waited.Store(true)
		}()
		synctest.Wait()
		if waited.Load() {
			t.Errorf("nobody waits although %d bytes do", bus.GatherBytes)
		}
		under.open <- struct{}{}
		synctest.Wait()
		if !waited.Load() {
			t.Error("who wrote still waits although nothing else does")
		}
		close(under.open)
		synctest.Wait()
		if got := bus.HeldByGatherConn(conn); got > 2*bus.KeptGatherBytes {
			t.Errorf("%d bytes are held after all has left", got)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if got, want := len(bytes.Join(under.took, nil)), len("under way")+bus.GatherBytes+len("beyond"); got != want {
			t.Errorf("%d bytes left, want %d", got, want)
		}
	})
}

func TestAServerThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		conn := bus.NewGatherConn(here)
		began := time.Now()
		put(t, conn, []byte("PUB x 0\r\n\r\n"))
		synctest.Wait() // it is under way
		// The library sets deadlines around what it believes to be the writing, and while it connects.
		if err := errors.Join(conn.SetDeadline(began.Add(time.Second)), conn.SetWriteDeadline(began.Add(time.Second)), conn.SetReadDeadline(time.Time{})); err != nil {
			t.Error(err)
		}
		put(t, conn, make([]byte, bus.GatherBytes))
		refused := make(chan error, 1)
		go func() {
			_, err := conn.Write([]byte("beyond"))
			refused <- err
		}()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who reads learns %v", err)
		}
		if took := time.Since(began); took != bus.GatherTimeout {
			t.Errorf("given up after %s, want %s", took, bus.GatherTimeout)
		}
		if err := <-refused; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who waited to write learns %v", err)
		}
		if _, err := conn.Write([]byte("more")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who writes learns %v", err)
		}
		_ = conn.Close()
	})
}

func TestWhatIsReadHasItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, conn := gathering(t)
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who reads learns %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEachWriteLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under, conn := gathering(t)
		close(under.open)
		for i := range 3 {
			put(t, conn, []byte("x"))
			synctest.Wait()
			if got := len(under.took); got != i+1 {
				t.Errorf("%d of %d writes left", got, i+1)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

// With one processor who writes is followed by whoever could run before, so that what leaves is what all have written.
func TestWritesLeaveOnceNobodyElseCanRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const writers = 50
	under, conn := gathering(t)
	close(under.open)
	var work sync.WaitGroup
	for range writers {
		work.Go(func() { put(t, conn, []byte("x")) })
	}
	work.Wait()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if got := len(under.took); got > writers/5 {
		t.Errorf("%d writes left as %d", writers, got)
	}
}

func TestCloseWaitsForAWriteThatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under, conn := gathering(t)
		put(t, conn, []byte("x"))
		synctest.Wait()
		var closed atomic.Bool
		go func() {
			_ = conn.Close()
			closed.Store(true)
		}()
		synctest.Wait()
		if closed.Load() {
			t.Error("closed before what was written has left")
		}
		close(under.open)
		synctest.Wait()
		if !closed.Load() {
			t.Error("not closed after what was written has left")
		}
	})
}

func TestCloseDoesNotWaitForAServerThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, takes := range map[string]time.Duration{
		"nothing":              time.Hour,
		"what it has, at last": bus.GatherClosing - time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer func() { _ = there.Close() }()
				time.AfterFunc(takes, func() { _, _ = there.Read(make([]byte, 64)) })
				conn := bus.NewGatherConn(here)
				put(t, conn, []byte("under way"))
				synctest.Wait()
				put(t, conn, make([]byte, bus.GatherBytes))
				refused := make(chan error, 1)
				go func() {
					_, err := conn.Write([]byte("beyond"))
					refused <- err
				}()
				synctest.Wait()
				began := time.Now()
				var twice sync.WaitGroup
				for range 2 {
					twice.Go(func() { _ = conn.Close() })
				}
				if err := <-refused; !errors.Is(err, net.ErrClosed) || time.Since(began) != 0 {
					t.Errorf("who waited to write learns %v after %s", err, time.Since(began))
				}
				twice.Wait()
				if took := time.Since(began); took > bus.GatherClosing {
					t.Errorf("closed after %s, want %s at most", took, bus.GatherClosing)
				}
				if _, err := conn.Write([]byte("more")); err == nil {
					t.Error("a closed connection takes more")
				}
			})
		})
	}
}

// lingers is a connection whose first write deadline takes a while to be set.
type lingers struct {
	net.Conn
	second atomic.Bool
	begins chan struct{}
}

func (c *lingers) SetWriteDeadline(t time.Time) error {
	if c.second.CompareAndSwap(false, true) {
		close(c.begins)
		<-time.After(20 * time.Millisecond)
	}
	return c.Conn.SetWriteDeadline(t)
}

// Close must bound a write also when it comes between what the writer set as its deadline, and the write.
func TestCloseBoundsAWriteThatBegins(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer time.AfterFunc(4*bus.GatherClosing, func() { _ = there.Close() }).Stop()
	under := &lingers{Conn: here, begins: make(chan struct{})}
	conn := bus.NewGatherConn(under)
	put(t, conn, []byte("begins"))
	<-under.begins
	began := time.Now()
	_ = conn.Close()
	if took := time.Since(began); took >= 4*bus.GatherClosing {
		t.Errorf("closed after %s, want %s at most", took, bus.GatherClosing)
	}
}

// sink is a connection that takes everything.
type sink struct {
	net.Conn
	writes atomic.Int64
}

func (c *sink) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return len(p), nil
}

func (c *sink) SetWriteDeadline(time.Time) error { return nil }

// The library does not close a connection at which it could not log in when it connects again, five times a second.
func TestAForgottenConnectionIsCollected(t *testing.T) {
	t.Parallel()
	collected := make(chan struct{})
	func() {
		under := &sink{}
		runtime.AddCleanup(under, func(c chan struct{}) { close(c) }, collected)
		put(t, bus.NewGatherConn(under), []byte("CONNECT {}\r\n"))
		eventually(t, "the write leaves", func() bool { return under.writes.Load() == 1 })
	}()
	eventually(t, "the collector finds the connection", func() bool {
		runtime.GC()
		select {
		case <-collected:
			return true
		default:
			return false
		}
	})
}

// What a context says of how to connect holds: whoever must go through a proxy does not go around it.
func TestTheProxyOfAContextIsAsked(t *testing.T) {
	t.Parallel()
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	asked := make(chan byte, 1)
	go func() {
		conn, err := proxy.Accept()
		if err != nil {
			return
		}
		version := make([]byte, 1)
		_, _ = io.ReadFull(conn, version)
		asked <- version[0]
		_ = conn.Close()
	}()
	file := filepath.Join(t.TempDir(), "behind.json")
	text := fmt.Sprintf(`{"url": %q, "socks_proxy": "socks5://%s"}`, bustest.Server(t).ClientURL(), proxy.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := bus.Connect(t.Context(), bus.Config{Context: file}); err == nil {
		_ = b.Close()
		t.Fatal("connected around the proxy")
	}
	if got := <-asked; got != 5 {
		t.Errorf("the proxy was asked in version %d of SOCKS", got)
	}
}

// counted counts what is written to a connection, in calls.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// dialer connects, plainly or gathering, and counts.
type dialer struct {
	wrap   func(net.Conn) net.Conn
	writes atomic.Int64
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return d.wrap(&counted{conn, &d.writes}), nil
}

// BenchmarkGather asks and answers, as many at a time as a busy process does, and tells how many writes that takes.
func BenchmarkGather(b *testing.B) {
	plain := func(c net.Conn) net.Conn { return c }
	for _, way := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{{"plain", plain}, {"gathered", bus.NewGatherConn}} {
		b.Run(way.name, func(b *testing.B) {
			d := &dialer{wrap: way.wrap}
			conn, err := nats.Connect(bustest.Server(b).ClientURL(), nats.SetCustomDialer(d), nats.Timeout(patience))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Subscribe("echo", func(msg *nats.Msg) { _ = msg.Respond(msg.Data) }); err != nil {
				b.Fatal(err)
			}
			body := make([]byte, 256)
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := conn.Request("echo", body, patience); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(d.writes.Load())/float64(b.N), "writes/op")
		})
	}
}
