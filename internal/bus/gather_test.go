package bus_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
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
		var waited atomic.Bool
		go func() {
			put(t, conn, []byte("beyond"))
			waited.Store(true)
		}()
		synctest.Wait()
		if waited.Load() {
			t.Errorf("nobody waits although %d bytes do", bus.GatherBytes)
		}
		close(under.open)
		synctest.Wait()
		if !waited.Load() {
			t.Error("who wrote still waits after all has left")
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
		// The library sets deadlines around what it believes to be the writing.
		if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Error(err)
		}
		began := time.Now()
		put(t, conn, []byte("PUB x 0\r\n\r\n"))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("who reads learns %v", err)
		}
		if took := time.Since(began); took != bus.GatherTimeout {
			t.Errorf("given up after %s, want %s", took, bus.GatherTimeout)
		}
		synctest.Wait()
		if _, err := conn.Write([]byte("more")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who writes learns %v", err)
		}
		_ = conn.Close()
	})
}

func TestCloseDoesNotWaitForAServerThatTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		conn := bus.NewGatherConn(here)
		put(t, conn, []byte("under way"))
		synctest.Wait()
		put(t, conn, []byte("waits"))
		began := time.Now()
		_ = conn.Close()
		if took := time.Since(began); took > bus.GatherClosing {
			t.Errorf("closed after %s, want %s at most", took, bus.GatherClosing)
		}
		if _, err := conn.Write([]byte("more")); err == nil {
			t.Error("a closed connection takes more")
		}
	})
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
