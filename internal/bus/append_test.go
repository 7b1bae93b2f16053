package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

func TestAppendTellsTheSequence(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	last := write(t, b, alice, 0, start("a"), delta("a", 0, "x", "y"), end("a", 2))
	c := chain(t, b, alice)
	if c.Sequence() != last || len(c.Frames) != 3 || c.Terminal() == nil || c.Next() != 2 || c.Attempts() != 1 || c.BodyHash() != "h" {
		t.Errorf("chain %+v, last sequence %d", c, last)
	}
}

func TestSecondWriterIsFenced(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	first := write(t, b, alice, 0, start("a"))
	second := write(t, b, alice, first, delta("a", 0, "x"))
	for name, tt := range map[string]struct {
		expect uint64
		frame  *schemas.Frame
	}{
		"start on a claimed chain":    {0, start("b")},
		"old frame":                   {first, delta("b", 0, "y")},
		"sequence that never was":     {second + 100, delta("a", 1, "y")},
		"own frame that is not last":  {0, start("a")},
		"another attempt, same index": {first, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 2, Writer: "a", Count: 1, Data: []byte("x")}},
	} {
		if _, err := b.Append(t.Context(), alice, tt.expect, tt.frame); !errors.Is(err, bus.ErrFenced) {
			t.Errorf("%s: %v, want ErrFenced", name, err)
		}
	}
	if again, err := b.Append(t.Context(), alice, first, delta("a", 0, "x")); err != nil || again != second {
		t.Errorf("the last frame written again: sequence %d, error %v, want %d", again, err, second)
	}
	if n := len(chain(t, b, alice).Frames); n != 2 {
		t.Errorf("the chain has %d frames, want 2", n)
	}
}

// A write whose answer does not come back, for whatever reason, is found in the chain and not written twice.
func TestAnswerLostAfterCommit(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, p *bustest.Proxy){
		"connection cut": func(_ *testing.T, p *bustest.Proxy) { p.Cut() },
		"answer late": func(t *testing.T, p *bustest.Proxy) {
			await(t, "the next try", p.At(bustest.ToServer, alice.Chunks(), bustest.Pass))
			p.Set(bustest.ToClient, bustest.Pass)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := prometheus.NewRegistry()
			b, p, near := far(t, bus.Config{Registerer: registry})
			first := write(t, b, alice, 0, start("a"))
			p.Set(bustest.ToClient, bustest.Hold)
			done := appending(t, b, alice, first, delta("a", 0, "x"))
			eventually(t, "the commit", func() bool { return len(chain(t, near, alice).Frames) == 2 })
			lose(t, p)
			got := <-done
			c := chain(t, near, alice)
			if got.err != nil || got.sequence != c.Sequence() || len(c.Frames) != 2 {
				t.Errorf("sequence %d, error %v; the chain has %d frames and ends with %d", got.sequence, got.err, len(c.Frames), c.Sequence())
			}
			if n := counts(t, registry); n["committed"] != 1 || n["ok"] != 1 || n["fenced"]+n["retried"]+n["unresolved"] != 0 {
				t.Errorf("outcomes: %v", n)
			}
			write(t, b, alice, got.sequence, end("a", 1))
		})
	}
}

func TestRequestLostOnItsWay(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b, p, near := far(t, bus.Config{Registerer: registry})
	lost := p.At(bustest.ToServer, alice.Chunks(), bustest.Drop)
	done := appending(t, b, alice, 0, start("a"))
	await(t, "the loss", lost)
	p.Cut()
	got := <-done
	if c := chain(t, near, alice); got.err != nil || got.sequence != c.Sequence() || len(c.Frames) != 1 {
		t.Errorf("sequence %d, error %v, chain of %d frames", got.sequence, got.err, len(c.Frames))
	}
	if n := counts(t, registry); n["retried"] != 1 {
		t.Errorf("outcomes: %v, want one that was retried", n)
	}
}

// The server goes away under a write and comes back over the same store: before the write, or with it.
func TestServerRestartsUnderAppend(t *testing.T) {
	t.Parallel()
	for name, committed := range map[string]bool{"before the write": false, "after the commit": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRestartable(t)
			near := connect(t, r.server, bus.Config{})
			if err := near.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			b := connect(t, r.server, bus.Config{URL: r.proxy.URL()})
			first := write(t, b, alice, 0, start("a"))
			var done <-chan appended
			if committed {
				r.proxy.Set(bustest.ToClient, bustest.Drop)
				done = appending(t, b, alice, first, delta("a", 0, "x"))
				eventually(t, "the commit", func() bool { return len(chain(t, near, alice).Frames) == 2 })
				r.server.Close()
			} else {
				r.server.Close()
				done = appending(t, b, alice, first, delta("a", 0, "x"))
			}
			r.start()
			got := <-done
			if got.err != nil {
				t.Fatal(got.err)
			}
			last := write(t, b, alice, got.sequence, end("a", 1))
			eventually(t, "the connection that reads to be back, and a chain of three frames", func() bool {
				c, err := b.Chain(t.Context(), alice)
				return err == nil && c.Sequence() == last && len(c.Frames) == 3
			})
		})
	}
}

// What JetStream may answer besides a sequence, given by a stand-in: a write goes on until it is certain.
func TestOutcomeOfEachAnswer(t *testing.T) {
	t.Parallel()
	const stored = `{"stream":"S","seq":9}`
	for name, first := range map[string]string{
		"earlier write in flight":     `{"error":{"code":400,"err_code":10164,"description":"x"}}`,
		"same id in flight":           `{"error":{"code":409,"err_code":10158,"description":"x"}}`,
		"no leader":                   `{"error":{"code":503,"err_code":10008,"description":"x"}}`,
		"no resources":                `{"error":{"code":503,"err_code":10023,"description":"x"}}`,
		"too fast":                    `{"error":{"code":429,"err_code":10167,"description":"x"}}`,
		"limit reached":               `{"error":{"code":503,"err_code":10077,"description":"x"}}`,
		"unknown error":               `{"error":{"code":500,"err_code":99999,"description":"x"}}`,
		"unreadable error":            `{"error":7}`,
		"not an answer":               `hello`,
		"wrong sequence, no leader":   `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"}}`,
		"answer that has no sequence": `{"stream":"S"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t) // without streams, so that the stand-in is the only one to answer
			b := connect(t, server, bus.Config{})
			conn, _ := raw(t, server)
			var tries atomic.Int32
			payloads := make(chan string, 8)
			stand(t, conn, schemas.ChunksAll, func(m *nats.Msg) string {
				payloads <- m.Header.Get(schemas.HeaderExpectedSeq) + " " + m.Header.Get(schemas.HeaderFrame) + " " + string(m.Data)
				if tries.Add(1) == 1 {
					return first
				}
				return stored
			})
			if sequence, err := b.Append(deadline(t, patience), alice, 4, delta("a", 0, "x")); err != nil || sequence != 9 {
				t.Errorf("sequence %d, error %v", sequence, err)
			}
			for range 2 {
				if got, want := <-payloads, "4 delta 1 a 0 1 x"; got != want {
					t.Errorf("a try was %q, want %q", got, want)
				}
			}
			if n := tries.Load(); n != 2 {
				t.Errorf("%d tries, want 2", n)
			}
		})
	}
}

func TestAppendWaitsForAStream(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := connect(t, server, bus.Config{StoreBytes: 64 << 20})
	done := appending(t, b, alice, 0, start("a"))
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.err != nil {
		t.Errorf("no responders at first: %v", got.err)
	}
}

func TestHopelessAppendEndsSoon(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	closed := connect(t, nil, bus.Config{URL: bustest.Server(t).ClientURL()})
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	large := failure("a", 0, schemas.Errorf(schemas.CodeInternal, "x"))
	large.Summary = []byte(strings.Repeat("s", 2<<20))
	for name, try := range map[string]func() error{
		"closed connection": func() error { _, err := closed.Append(t.Context(), alice, 0, start("a")); return err },
		"too large":         func() error { _, err := b.Append(t.Context(), alice, 0, large); return err },
		"closed, object": func() error {
			_, err := closed.Append(t.Context(), alice, 0, delta("a", 0, strings.Repeat("x", schemas.InlineBytes+1)))
			return err
		},
	} {
		began := time.Now()
		err := try()
		if err == nil || errors.Is(err, bus.ErrFenced) || time.Since(began) > atOnce {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
		if name != "closed, object" && !errors.Is(err, bus.ErrUnresolved) {
			t.Errorf("%s: %v, want ErrUnresolved", name, err)
		}
	}
}

func TestAppendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	reason := errors.New("the caller has gone")
	for _, connected := range []bool{true, false} {
		var tried <-chan struct{}
		if connected {
			tried = p.At(bustest.ToServer, alice.Chunks(), bustest.Drop)
		} else {
			p.Lead("nats://127.0.0.1:1") // nobody is there
			p.Cut()
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { _, err := b.Append(ctx, alice, 0, start("a")); done <- err }()
		if connected {
			await(t, "a try", tried)
		}
		began := time.Now()
		cancel(reason)
		if err := <-done; !errors.Is(err, reason) || time.Since(began) > atOnce {
			t.Errorf("connected %v: %v after %v, want the cause at once", connected, err, time.Since(began))
		}
	}
	if n := len(chain(t, near, alice).Frames); n != 0 {
		t.Errorf("the chain has %d frames", n)
	}
}

// Of writers that expect the same frame exactly one goes on, whichever process it is in.
func TestOneOfManyRivalsWins(t *testing.T) {
	t.Parallel()
	const rivals, rounds = 8, 50
	server := bustest.Server(t)
	buses := []*bus.Bus{bustest.Connect(t, server, bus.Config{}), connect(t, server, bus.Config{URL: server.ClientURL()})}
	last := write(t, buses[0], alice, 0, start("a"))
	for round := range rounds {
		type attempt struct {
			sequence uint64
			err      error
		}
		attempts := make([]attempt, rivals)
		var begin, all sync.WaitGroup
		begin.Add(1)
		for i := range rivals {
			all.Go(func() {
				begin.Wait()
				sequence, err := buses[i%len(buses)].Append(t.Context(), alice, last, delta(fmt.Sprint("w", i), uint64(round), "x"))
				attempts[i] = attempt{sequence, err}
			})
		}
		begin.Done()
		all.Wait()
		winners := 0
		for _, a := range attempts {
			switch {
			case a.err == nil:
				winners++
				last = a.sequence
			case !errors.Is(a.err, bus.ErrFenced):
				t.Fatal(a.err)
			}
		}
		if winners != 1 {
			t.Fatalf("round %d has %d winners", round, winners)
		}
	}
	if c := chain(t, buses[0], alice); len(c.Frames) != rounds+1 || c.Next() != rounds || c.Sequence() != last {
		t.Errorf("the chain has %d frames and %d events", len(c.Frames), c.Next())
	}
}

type appended struct {
	sequence uint64
	err      error
}

// appending appends in the background.
func appending(t testing.TB, b *bus.Bus, id schemas.Identity, expect uint64, f *schemas.Frame) <-chan appended {
	done := make(chan appended, 1)
	ctx := deadline(t, patience)
	go func() {
		sequence, err := b.Append(ctx, id, expect, f)
		done <- appended{sequence, err}
	}()
	return done
}

// stand answers requests on a subject in the place of JetStream; an empty answer is none.
func stand(t testing.TB, conn *nats.Conn, subject string, answer func(*nats.Msg) string) {
	t.Helper()
	_, err := conn.Subscribe(subject, func(m *nats.Msg) {
		if a := answer(m); a != "" {
			_ = m.Respond([]byte(a))
		}
	})
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}
