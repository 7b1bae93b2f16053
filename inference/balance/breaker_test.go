package balance

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pool makes a pool whose breakers have no jitter.
func pool(t *testing.T, c Config) *Pool {
	t.Helper()
	if c.Rand == nil {
		c.Rand = func() float64 { return 0 }
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pick(t *testing.T, p *Pool, ask Ask) *Call {
	t.Helper()
	call, err := p.Pick(ask)
	if err != nil {
		t.Fatalf("no call: %v; members: %+v", err, p.State())
	}
	return call
}

// end makes so many calls that end with the result.
func end(t *testing.T, p *Pool, n int, result Result) {
	t.Helper()
	for range n {
		pick(t, p, Ask{}).Done(Outcome{Result: result})
	}
}

func refused(t *testing.T, p *Pool, want UnavailableError) {
	t.Helper()
	_, err := p.Pick(Ask{})
	got, ok := errors.AsType[*UnavailableError](err)
	if !ok {
		t.Fatalf("got error %v, want %+v", err, want)
	}
	if d := cmp.Diff(want, *got); d != "" {
		t.Fatal(d)
	}
}

func one(most int) []Member { return []Member{{Name: "a", MaxInFlight: most, SlowStart: time.Second}} }

func TestBreakerOpens(t *testing.T) {
	for name, c := range map[string]struct {
		successes, neutral, refusals, failures int
		open                                   bool
	}{
		"too few calls":            {failures: 19},
		"enough calls":             {failures: 20, open: true},
		"less than half":           {successes: 11, failures: 10},
		"half":                     {successes: 10, failures: 10, open: true},
		"all at once after many":   {successes: 1000, failures: 20, open: true},
		"not all at once":          {successes: 1000, failures: 19},
		"neutral calls count not":  {neutral: 100, failures: 19},
		"refusals are no failures": {refusals: 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var changes []Change
				p := pool(t, Config{Members: one(100), Notify: func(c Change) { changes = append(changes, c) }})
				end(t, p, c.successes, Success)
				end(t, p, c.neutral, Neutral)
				var calls []*Call
				for range c.refusals {
					calls = append(calls, pick(t, p, Ask{}))
				}
				for _, call := range calls {
					call.Done(Outcome{Result: TooMany})
				}
				end(t, p, c.failures, Failed)
				state := p.State()[0]
				if got := state.Breaker == Open; got != c.open {
					t.Errorf("open: %t, want %t", got, c.open)
				}
				if c.open {
					refused(t, p, UnavailableError{Reason: Broken, Again: 5 * time.Second})
					if d := cmp.Diff([]Change{{To: Open, For: 5 * time.Second}}, changes); d != "" {
						t.Error(d)
					}
				}
			})
		})
	}
}

func TestBreakerForgetsOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: one(100)})
		for range 30 { // 19 in any window of ten seconds, though 57 in all
			end(t, p, 1, FirstTokenTimeout)
			time.Sleep(530 * time.Millisecond)
		}
		if state := p.State()[0]; state.Breaker != Closed {
			t.Fatalf("%+v", state)
		}
		time.Sleep(time.Minute) // an idle minute leaves nothing behind
		end(t, p, 19, Failed)
		if state := p.State()[0]; state.Breaker != Closed {
			t.Fatalf("%+v", state)
		}
		end(t, p, 1, Failed)
		if state := p.State()[0]; state.Breaker != Open {
			t.Fatalf("%+v", state)
		}
	})
}

func TestBreakerHalfOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: one(100)})
		late := pick(t, p, Ask{}) // from before
		end(t, p, 20, Failed)
		time.Sleep(5*time.Second - 1)
		refused(t, p, UnavailableError{Reason: Broken, Again: 1})
		time.Sleep(time.Nanosecond)
		if free := p.Free(); free != 3 {
			t.Fatalf("%d calls are free, want 3 probes", free)
		}
		probes := []*Call{pick(t, p, Ask{}), pick(t, p, Ask{}), pick(t, p, Ask{})}
		refused(t, p, UnavailableError{Reason: Broken})
		late.Done(Outcome{Result: Failed}) // says nothing about now
		probes[0].Done(Outcome{})          // nor does a cancelled one: another may go
		probes[0] = pick(t, p, Ask{})
		refused(t, p, UnavailableError{Reason: Broken})
		probes[0].FirstToken() // is enough
		probes[1].Done(Outcome{Result: Success})
		if state := p.State()[0]; state.Breaker != HalfOpen {
			t.Fatalf("%+v", state)
		}
		probes[2].Done(Outcome{Result: Success})
		if state := p.State()[0]; state.Breaker != Closed {
			t.Fatalf("%+v", state)
		}
		time.Sleep(time.Second) // it is warm
		end(t, p, 18, Failed)
		probes[0].Done(Outcome{Result: Failed}) // its stream broke after all, and counts like any other
		if state := p.State()[0]; state.Breaker != Closed {
			t.Fatalf("%+v", state)
		}
		end(t, p, 1, Failed)
		if state := p.State()[0]; state.Breaker != Open {
			t.Fatalf("%+v", state)
		}
	})
}

func TestBreakerStaysOpenLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: one(100)})
		end(t, p, 20, Failed)
		for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
			if until := p.State()[0].Until; until != want*time.Second {
				t.Fatalf("open for %s, want %ds", until, want)
			}
			time.Sleep(want * time.Second)
			end(t, p, 1, Failed) // one bad probe is enough
		}
		time.Sleep(time.Minute)
		end(t, p, 3, Success)
		time.Sleep(5 * time.Second)
		end(t, p, 20, Failed)
		if until := p.State()[0].Until; until != time.Minute {
			t.Errorf("open for %s after it flapped, want 1m", until)
		}
		time.Sleep(time.Minute)
		end(t, p, 3, Success)
		time.Sleep(11 * time.Second)
		end(t, p, 20, Failed)
		if until := p.State()[0].Until; until != 5*time.Second {
			t.Errorf("open for %s after it did well, want 5s", until)
		}
	})
}

func TestBreakerJitter(t *testing.T) {
	p := pool(t, Config{Members: one(100), Rand: func() float64 { return 0.5 }})
	end(t, p, 20, Failed)
	if until := p.State()[0].Until.Round(100 * time.Millisecond); until != 5500*time.Millisecond {
		t.Errorf("open for %s, want 5.5s", until)
	}
}

func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: one(100)})
		if p.Probe(0) != nil {
			t.Fatal("a closed breaker wants no probes")
		}
		end(t, p, 20, Failed)
		if p.Probe(0) != nil {
			t.Fatal("an open breaker lets no probe through")
		}
		time.Sleep(5 * time.Second)
		p.Probe(0).Done(Outcome{})
		if state := p.State()[0]; state.Breaker != HalfOpen || p.Free() != 3 {
			t.Fatalf("%+v", state)
		}
		p.Probe(0).Done(Outcome{Result: Failed})
		if state := p.State()[0]; state.Breaker != Open || state.Until != 10*time.Second {
			t.Fatalf("%+v", state)
		}
	})
}
