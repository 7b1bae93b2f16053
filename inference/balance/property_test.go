package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// running is a call that ends at a time.
type running struct {
	call *Call
	ends time.Duration
}

// TestNeverAboveLimits makes calls at random that end at random, and checks after each step that nothing runs where it
// must not and that the books are right.
func TestNeverAboveLimits(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			members := make([]Member, 1+r.IntN(5))
			for i := range members {
				members[i] = Member{Name: fmt.Sprint("m", i), Weight: 1 + r.IntN(4), MaxInFlight: 1 + r.IntN(8)}
			}
			c := Config{Members: members, Affinity: Affinity{On: r.IntN(2) == 0}}
			if r.IntN(2) == 0 {
				c.Adaptive = &Adaptive{}
			}
			p := pool(t, c)
			calls, picked := []*Call(nil), 0
			for range 3000 {
				before := p.State()
				free := p.Free()
				switch n := r.IntN(10); {
				case n < 5:
					call, err := p.Pick(Ask{Tokens: int64(r.IntN(5000)), Prefix: uint64(r.IntN(9))})
					if (err == nil) != (free > 0) {
						t.Fatalf("seed %d: %d are free, and a pick gave %v", seed, free, err)
					}
					if err != nil {
						break
					}
					if s := before[call.Member()]; s.Limit <= s.InFlight || s.Drained || s.Refused || s.Breaker == Open {
						t.Fatalf("seed %d: a call was given to %+v", seed, s)
					}
					calls = append(calls, call)
					picked++
				case n < 8 && len(calls) > 0:
					i := r.IntN(len(calls))
					if r.IntN(2) == 0 {
						calls[i].FirstToken()
					}
					calls[i].Done(Outcome{Result: Result(r.IntN(5)), RetryAfter: time.Duration(r.IntN(3)) * time.Second})
					calls = append(calls[:i], calls[i+1:]...)
				case n == 8:
					p.Drain(r.IntN(len(members)), r.IntN(3) == 0)
				default:
					time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
				}
				total := 0
				for i, s := range p.State() {
					total += s.InFlight
					if s.InFlight > members[i].MaxInFlight || s.InFlight < 0 || s.Limit > members[i].MaxInFlight || s.Tokens < 0 {
						t.Fatalf("seed %d: %+v of at most %d", seed, s, members[i].MaxInFlight)
					}
				}
				if total != len(calls) || p.Slots() != total+p.Free() {
					t.Fatalf("seed %d: %d in flight, %d calls, %d slots, %d free", seed, total, len(calls), p.Slots(), p.Free())
				}
			}
			for _, call := range calls {
				call.Done(Outcome{})
			}
			for _, s := range p.State() {
				if s.InFlight != 0 || s.Tokens != 0 {
					t.Fatalf("seed %d: something is left: %+v", seed, s)
				}
			}
			if picked < 100 {
				t.Errorf("seed %d: only %d calls, which proves little", seed, picked)
			}
		})
	}
}

// TestWeights has members of equal speed with different weights, at loads from next to nothing to nearly all they can
// take, and compares the tokens that each got with what it should have had.
func TestWeights(t *testing.T) {
	weights := []int{1, 2, 5}
	for _, concurrent := range []int{1, 8, 40, 100} {
		t.Run(fmt.Sprintf("concurrent=%d", concurrent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(7, uint64(concurrent)))
				members := make([]Member, len(weights))
				for i, w := range weights {
					members[i] = Member{Name: fmt.Sprint("m", i), Weight: w, MaxInFlight: 100}
				}
				p := pool(t, Config{Members: members})
				got, all := make([]float64, len(weights)), 0.
				var calls []running
				for now := time.Duration(0); now < 10*time.Minute; now += 10 * time.Millisecond {
					left := calls[:0]
					for _, c := range calls {
						if c.ends > now {
							left = append(left, c)
							continue
						}
						c.call.Done(Outcome{Result: Success})
					}
					for _, c := range left {
						c.call.FirstToken() // after the first step, all equally soon
					}
					for calls = left; len(calls) < concurrent; {
						tokens := int64(100 + r.IntN(1900))
						call := pick(t, p, Ask{Tokens: tokens})
						got[call.Member()] += float64(tokens)
						all += float64(tokens)
						calls = append(calls, running{call, now + time.Duration(tokens)*time.Millisecond})
					}
					time.Sleep(10 * time.Millisecond)
				}
				for i, w := range weights {
					if want := float64(w) / 8; math.Abs(got[i]/all-want) > 0.04 {
						t.Errorf("weight %d got %.1f %% of the tokens, want %.1f %%", w, 100*got[i]/all, 100*want)
					}
				}
			})
		})
	}
}

// TestFasterFirstTokenBreaksTies has idle members of which one answers sooner, and another that was slow but is not any more.
func TestFasterFirstTokenBreaksTies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, Config{Members: []Member{{Name: "slow", MaxInFlight: 9}, {Name: "fast", MaxInFlight: 9}}})
		took := []time.Duration{800 * time.Millisecond, 100 * time.Millisecond}
		serve := func(n int) (counts [2]int) {
			for range n {
				call := pick(t, p, Ask{Tokens: 500})
				counts[call.Member()]++
				time.Sleep(took[call.Member()])
				call.FirstToken()
				call.Done(Outcome{Result: Success})
			}
			return counts
		}
		serve(4)
		if got := serve(100); got[1] < 90 {
			t.Errorf("the faster one got %d of 100", got[1])
		}
		took[0] = 10 * time.Millisecond // now it is the other
		serve(600)
		if got := serve(100); got[0] < 90 {
			t.Errorf("the one that is faster now got %d of 100", got[0])
		}
	})
}

func TestAffinity(t *testing.T) {
	members := []Member{{Name: "a", MaxInFlight: 16}, {Name: "b", MaxInFlight: 16}, {Name: "c", MaxInFlight: 16}, {Name: "d", MaxInFlight: 16, Weight: 3}}
	homes := func(p *Pool) map[uint64]int {
		all := map[uint64]int{}
		for prefix := range uint64(3000) {
			call := pick(t, p, Ask{Prefix: prefix + 1})
			all[prefix] = call.Member()
			call.Done(Outcome{})
		}
		return all
	}
	on := Config{Members: members, Affinity: Affinity{On: true}}
	p := pool(t, on)
	first := homes(p)
	counts := make([]int, len(members))
	for prefix, home := range homes(pool(t, on)) { // another worker
		counts[home]++
		if home != first[prefix] {
			t.Fatal("two workers do not agree where a conversation is at home")
		}
	}
	for i, want := range []int{500, 500, 500, 1500} {
		if math.Abs(float64(counts[i]-want)) > 0.15*float64(want) {
			t.Errorf("%s has %d conversations, want about %d", members[i].Name, counts[i], want)
		}
	}
	p.Drain(1, true)
	for prefix, home := range homes(p) {
		if was := first[prefix]; home != was && was != 1 || home == 1 {
			t.Fatalf("conversation %d went from %d to %d when 1 was drained", prefix, was, home)
		}
	}
}

// TestAffinityGivesWay lets everybody hold the same conversation.
func TestAffinityGivesWay(t *testing.T) {
	p := pool(t, Config{Members: []Member{{Name: "a", MaxInFlight: 16}, {Name: "b", MaxInFlight: 16}, {Name: "c", MaxInFlight: 16}}, Affinity: Affinity{On: true}})
	var calls []*Call
	most := func() (most, all int) {
		for _, s := range p.State() {
			most, all = max(most, s.InFlight), all+s.InFlight
		}
		return most, all
	}
	for range 48 {
		calls = append(calls, pick(t, p, Ask{Prefix: 42}))
		most, all := most()
		if all <= 4 && most != all {
			t.Fatalf("%d of %d calls are at home, with nothing else to do", most, all)
		}
		if limit := math.Ceil(1.25 * float64(all+1) / 3); all > 12 && float64(most) > limit {
			t.Fatalf("%d of %d calls are on one member, more than %.0f", most, all, limit)
		}
	}
	refused(t, p, UnavailableError{Reason: Busy})
	for _, call := range calls {
		call.Done(Outcome{})
	}
}
