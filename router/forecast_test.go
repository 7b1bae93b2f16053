package router

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// What is predicted for a request when it joins the queue is about what it waits in a queue that is served at a steady pace,
// whoever it is of and whatever else waits.
func TestForecastComesTrue(t *testing.T) {
	const rate = 1000.0 // tokens a second
	seeds(t, func(t *testing.T, r *rand.Rand) {
		weights := map[string]int{"a": 1, "b": 2, "c": 4, "d": 1}
		c := newClasses(func(tenant string) int { return weights[tenant] })
		now, served := time.Unix(0, 0), &pace{tokens: rate * 10, seconds: 10}
		join := func(tenant string, cost int64) (it *item, wait time.Duration) {
			it = costing(tenant, schemas.PriorityNormal, cost)
			it.class = classNormal
			wait = served.takes(c.ahead(classNormal, tenant, c.lines[classNormal].tokensOf(tenant)))
			c.push(it)
			return it, wait
		}
		for range 50 + r.IntN(50) {
			for _, tenant := range slices.Sorted(maps.Keys(weights)) {
				join(tenant, 200+r.Int64N(600))
			}
		}
		for range r.IntN(500) { // they have waited for a while, and are in the middle of a round
			join(c.pop().req.Tenant, 200+r.Int64N(600))
		}
		said := map[*item]time.Duration{}
		for _, tenant := range []string{"a", "c", "new"} {
			it, wait := join(tenant, 500)
			said[it] = wait
		}
		for c.count > 0 {
			it := c.pop()
			if wait, asked := said[it]; asked && math.Abs(now.Sub(time.Unix(0, 0)).Seconds()-wait.Seconds()) > 2+wait.Seconds()/4 {
				t.Errorf("%s was told %s and waited %s", it.req.Tenant, wait, now.Sub(time.Unix(0, 0)))
			}
			now = now.Add(time.Duration(float64(it.cost) / rate * float64(time.Second)))
		}
	})
}

func TestPaceIsLearnedWhileSomeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{}
		step := func(tokens int64) {
			p.left(tokens)
			time.Sleep(tick)
			p.wait(time.Now())
		}
		p.wait(time.Now())
		for range 10 {
			step(100)
		}
		if got := p.takes(1000); got != 0 {
			t.Errorf("after a second it is believed: %s", got)
		}
		for range 100 {
			step(100)
		}
		if got := p.takes(1000); got < 900*time.Millisecond || got > 1100*time.Millisecond {
			t.Errorf("1,000 tokens at 1,000 a second take %s", got)
		}
		p.rest()
		time.Sleep(time.Hour) // nobody waits: it says nothing
		p.wait(time.Now())
		if got := p.takes(1000); got < 900*time.Millisecond || got > 1100*time.Millisecond {
			t.Errorf("after an hour without a queue 1,000 tokens take %s", got)
		}
		for range 1000 {
			step(200)
		}
		if got := p.takes(1000); got < 450*time.Millisecond || got > 550*time.Millisecond {
			t.Errorf("1,000 tokens at 2,000 a second take %s", got)
		}
	})
}

// What leaves while nobody waits for the workers, as what waits for the limits of its tenant does, says nothing of their pace.
func TestPaceIsOfTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 600}, MaxQueueWait: time.Hour})
		for range 30 { // at 10 tokens a second, with room for a hundred of them
			b.from("acme", 100)
		}
		b.after(2 * time.Minute)
		if got := b.loop.pace("m"); got.tokens > 0 || got.seconds > 0 {
			t.Errorf("the pace of workers with room is taken for %+v", *got)
		}
	})
}

// More urgent requests go first, but not before the floor of those below.
func TestForecastKnowsTheClasses(t *testing.T) {
	t.Parallel()
	c := newClasses(equal)
	for range 100 {
		it := costing("rush", schemas.PriorityInteractive, 1000)
		it.class = classInteractive
		c.push(it)
	}
	it := costing("slow", schemas.PriorityBatch, 1000)
	it.class = classBatch
	c.push(it)
	if got, most := c.ahead(classBatch, "slow", 1000), 1000/floors[classBatch]+owedFirst; got <= 1000 || got > most {
		t.Errorf("before the second batch request go %.0f tokens, want at most %.0f", got, most)
	}
	if got := c.ahead(classInteractive, "rush", 1000); got < 1000 || got > 1100 {
		t.Errorf("before the second interactive request go %.0f tokens, want little more than 1000", got)
	}
	if got := c.ahead(classNormal, "new", 0); got > owedFirst {
		t.Errorf("before the first normal request go %.0f tokens, want at most what the class must be owed", got)
	}
}
