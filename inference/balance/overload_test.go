package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// engine is a model server: so many sequences run at once at full speed, and beyond that prompts wait behind each other, so
// that first tokens come late, and everything takes longer.
type engine struct {
	mu      sync.Mutex
	running int
	fits    int           // sequences at full speed
	first   time.Duration // to first token at full speed
	whole   time.Duration // of an answer, after that
	broken  bool
}

// crowd is how much slower everything is now.
func (e *engine) crowd() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(1, float64(e.running)/float64(e.fits))
}

func (e *engine) add(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running += n
}

// run makes a call, and returns its time to first token and how it ended.
func (e *engine) run(call *Call, r *rand.Rand) (first time.Duration, ok bool) {
	e.add(1)
	defer e.add(-1)
	e.mu.Lock()
	broken, noise := e.broken, 0.8+0.4*r.Float64()
	e.mu.Unlock()
	if broken {
		call.Done(Outcome{Result: Failed})
		return 0, false
	}
	crowd := e.crowd()
	first = time.Duration(noise * crowd * crowd * float64(e.first)) // prefills wait for prefills
	time.Sleep(first)
	call.FirstToken()
	time.Sleep(time.Duration(noise * e.crowd() * float64(e.whole)))
	call.Done(Outcome{Result: Success})
	return first, true
}

// load is what a simulation counts, by second.
type load struct {
	mu     sync.Mutex
	done   map[int]int
	firsts map[int][]time.Duration
}

// offer sends so many requests a second at the pool for a time, which runs what it admits and drops the rest, as callers
// do that have enough of waiting.
func (l *load) offer(p *Pool, engines []*engine, perSecond float64, began time.Time, until time.Duration, r *rand.Rand) {
	for time.Since(began) < until {
		time.Sleep(time.Duration(r.ExpFloat64() / perSecond * float64(time.Second)))
		call, err := p.Pick(Ask{Tokens: 500, Prompt: 200})
		if err != nil {
			continue
		}
		noise := rand.New(rand.NewPCG(r.Uint64(), 1))
		go func() {
			at := int(time.Since(began).Seconds())
			first, ok := engines[call.Member()].run(call, noise)
			if !ok {
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.done[int(time.Since(began).Seconds())]++
			l.firsts[at] = append(l.firsts[at], first)
		}()
	}
}

// rate is how many requests ended per second, from and to which.
func (l *load) rate(from, to int) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for s := from; s < to; s++ {
		n += l.done[s]
	}
	return float64(n) / float64(to-from)
}

// p99 is the time to first token of 99 of 100 requests that began in these seconds.
func (l *load) p99(from, to int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []time.Duration
	for s := from; s < to; s++ {
		all = append(all, l.firsts[s]...)
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// TestGoodputUnderOverload offers three times of what three engines can do, with max_in_flight far too high, so that the
// adaptive limit alone stands between the demand and the engines; then one of them breaks and comes back.
func TestGoodputUnderOverload(t *testing.T) {
	const ceiling = time.Second
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var engines []*engine
		var members []Member
		best := 0.
		for i, fits := range []int{32, 16, 48} {
			e := &engine{fits: fits, first: 200 * time.Millisecond, whole: 1800 * time.Millisecond}
			engines = append(engines, e)
			members = append(members, Member{Name: fmt.Sprint("e", i), MaxInFlight: 4 * fits, Weight: fits / 16})
			best += float64(fits) / (e.first + e.whole).Seconds()
		}
		p := pool(t, Config{Members: members, Adaptive: &Adaptive{Ceiling: ceiling}})
		l := &load{done: map[int]int{}, firsts: map[int][]time.Duration{}}
		began := time.Now()
		go func() {
			time.Sleep(180 * time.Second)
			engines[2].mu.Lock()
			engines[2].broken = true
			engines[2].mu.Unlock()
			time.Sleep(30 * time.Second)
			engines[2].mu.Lock()
			engines[2].broken = false
			engines[2].mu.Unlock()
		}()
		l.offer(p, engines, 3*best, began, 300*time.Second, r)
		overload, p99 := l.rate(60, 180), l.p99(60, 180)
		t.Logf("at three times the demand: %.1f of %.1f a second, first token p99 %s", overload, best, p99)
		if overload < 0.9*best {
			t.Errorf("%.1f of %.1f a second are answered", overload, best)
		}
		if p99 > ceiling {
			t.Errorf("first token p99 is %s, above its limit of %s", p99, ceiling)
		}
		broken, again := l.rate(190, 210), l.rate(250, 300)
		t.Logf("with one broken: %.1f, afterwards %.1f a second", broken, again)
		if rest := best / 2; broken < 0.9*rest {
			t.Errorf("with one broken, %.1f of %.1f a second are answered", broken, rest)
		}
		if again < 0.9*best {
			t.Errorf("after it came back, %.1f of %.1f a second are answered", again, best)
		}
		// When the overload ends, first tokens are soon as before.
		calm := time.Since(began)
		l.offer(p, engines, best/2, began, calm+40*time.Second, r)
		from := int(calm.Seconds()) + 10
		after, rate := l.p99(from, from+25), l.rate(from, from+25)
		t.Logf("ten seconds after the overload: %.1f of %.1f a second, first token p99 %s", rate, best/2, after)
		if after > 300*time.Millisecond || rate < 0.9*best/2 {
			t.Errorf("ten seconds after the overload first token p99 is %s, and %.1f of %.1f a second are answered", after, rate, best/2)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}
