package router

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

func equal(string) int { return 1 }

// costing is an item of a tenant in a class.
func costing(tenant string, priority schemas.Priority, cost int64) *item {
	return &item{cost: cost, req: &schemas.Request{Identity: schemas.Identity{Tenant: tenant}, ModelToken: "m", Priority: priority}}
}

// seeds runs a property on several sequences of chance.
func seeds(t *testing.T, property func(t *testing.T, r *rand.Rand)) {
	t.Parallel()
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { property(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// While all of them wait, tenants get tokens by their weights, whatever their requests cost and however many they send.
func TestTokensGoByWeight(t *testing.T) {
	seeds(t, func(t *testing.T, r *rand.Rand) {
		weights := map[string]int{"a": 1, "b": 2, "c": 4, "d": 1 + r.IntN(MaxWeight)}
		largest := map[string]int64{"a": 1 + r.Int64N(maxCost/64), "b": 1 + r.Int64N(100), "c": 1 + r.Int64N(5000), "d": 1 + r.Int64N(20000)}
		f := newFair(func(tenant string) int { return weights[tenant] })
		got, sent := map[string]int64{}, map[string]int{}
		send := func(tenant string) {
			it := costing(tenant, "", 1+r.Int64N(largest[tenant]))
			it.sequence = uint64(sent[tenant])
			sent[tenant]++
			f.push(it)
		}
		for tenant := range weights {
			for range 2 + r.IntN(20) { // one in hand and one to wait
				send(tenant)
			}
		}
		next := map[string]uint64{}
		for range 5000 {
			it := f.pop(false)
			tenant := it.req.Tenant
			if it.sequence != next[tenant] {
				t.Fatalf("request %d of %s goes before %d", it.sequence, tenant, next[tenant])
			}
			next[tenant]++
			got[tenant] += it.cost
			send(tenant) // nobody ever stops waiting
		}
		// Goyal, Vin and Cheng bound the distance of two tenants' normalised service by a request of each.
		for one, w1 := range weights {
			for other, w2 := range weights {
				distance := float64(got[one])/float64(w1) - float64(got[other])/float64(w2)
				bound := float64(largest[one])/float64(w1) + float64(largest[other])/float64(w2)
				if distance > bound {
					t.Errorf("%s (weight %d) got %d tokens and %s (weight %d) %d: %.0f tokens of weight 1 apart, at most %.0f are fair",
						one, w1, got[one], other, w2, got[other], distance, bound)
				}
			}
		}
	})
}

// Whatever is pushed, popped, put back and removed, the queue holds exactly what it should, and each tenant's in order.
func TestQueueAgainstAModel(t *testing.T) {
	seeds(t, func(t *testing.T, r *rand.Rand) {
		q := newQueue(func(tenant string) int { return int(tenant[0]) - 'c' }) // some are not positive
		inside := map[uint64]*item{}
		var number uint64
		var popped *item
		for range 3000 {
			switch r.IntN(7) {
			case 0, 1, 2:
				it := costing(string(rune('a'+r.IntN(6))), []schemas.Priority{"", "interactive", "normal", "batch"}[r.IntN(4)], r.Int64N(4000))
				number++
				it.sequence = number
				q.push(it)
				inside[number] = it
			case 3, 4:
				popped = q.pop("m")
				if (popped == nil) != (len(inside) == 0) {
					t.Fatalf("pop gave %v of %d requests", popped, len(inside))
				}
				if popped == nil {
					continue
				}
				for _, other := range inside {
					if other.req.Tenant == popped.req.Tenant && other.class == popped.class && other.sequence < popped.sequence {
						t.Fatalf("request %d of a tenant goes before its %d", popped.sequence, other.sequence)
					}
				}
				delete(inside, popped.sequence)
			case 5:
				if popped != nil {
					q.unpop(popped)
					inside[popped.sequence], popped = popped, nil
				}
			case 6:
				for sequence, it := range inside {
					if !q.remove(it) || q.remove(it) {
						t.Fatal("remove must report whether the request was queued")
					}
					delete(inside, sequence)
					break
				}
			}
			if q.len() != len(inside) || q.has("m") != (len(inside) > 0) {
				t.Fatalf("the queue says %d, has(m) = %t, with %d inside", q.len(), q.has("m"), len(inside))
			}
		}
	})
}

// A class below gets its floor while more urgent work never ends, and no more than that.
func TestClassesKeepTheirFloors(t *testing.T) {
	seeds(t, func(t *testing.T, r *rand.Rand) {
		c := newClasses(equal)
		priorities := []schemas.Priority{schemas.PriorityInteractive, schemas.PriorityNormal, schemas.PriorityBatch}
		push := func(i class) {
			it := costing("acme", priorities[i], 1+r.Int64N(8000))
			it.class = i
			c.push(it)
		}
		for i := range classCount {
			push(i)
		}
		var got [classCount]float64
		total := 0.0
		for range 20_000 {
			it := c.pop()
			got[it.class] += float64(it.cost)
			total += float64(it.cost)
			push(it.class)
		}
		for i, floor := range []float64{0.75, 0.20, 0.05} {
			if part := got[i] / total; part < floor-0.01 || part > floor+0.01 {
				t.Errorf("class %d got %.3f of the tokens, want %.2f", i, part, floor)
			}
		}
	})
}

func TestTheMostUrgentGoesFirst(t *testing.T) {
	t.Parallel()
	q := newQueue(equal)
	for _, p := range []schemas.Priority{schemas.PriorityBatch, schemas.PriorityNormal, schemas.PriorityInteractive} {
		q.push(costing("acme", p, 10))
	}
	for want := range classCount {
		if it := q.pop("m"); it.class != want {
			t.Errorf("class %d goes in the place of %d", it.class, want)
		}
	}
}

// A class that has used up more than its floor while nothing more urgent waited has no debt from it.
func TestAClassOwesNothingForIdleTime(t *testing.T) {
	t.Parallel()
	q := newQueue(equal)
	for range 100 {
		q.push(costing("acme", schemas.PriorityBatch, 1000))
		q.pop("m")
	}
	for range 100 {
		q.push(costing("acme", schemas.PriorityBatch, 1000))
		q.push(costing("acme", schemas.PriorityInteractive, 1000))
	}
	for i := range 25 { // a twentieth is one of 20
		if it := q.pop("m"); it.class == classBatch {
			if i == 0 {
				t.Error("batch goes before interactive although it is owed nothing")
			}
			return
		}
	}
	t.Error("25 requests went and none of them was of batch")
}

// A request that found room at once, and whose dispatch failed, has not waited yet: it waits in its own class.
func TestWhatComesBackIsInItsClass(t *testing.T) {
	t.Parallel()
	q := newQueue(equal)
	back := costing("acme", schemas.PriorityBatch, 10)
	q.unpop(back)
	q.push(costing("beta", schemas.PriorityNormal, 10))
	if first := q.pop("m"); first == back || q.pop("m") != back || back.class != classBatch {
		t.Errorf("a batch request that came back is of class %d and goes before one of class %d", back.class, classNormal)
	}
}

func TestWaitingMakesUrgent(t *testing.T) {
	t.Parallel()
	q := newQueue(equal)
	old, young := costing("acme", schemas.PriorityBatch, 10), costing("acme", schemas.PriorityBatch, 10)
	q.push(old)
	began := old.queued
	q.push(young)
	young.queued = began.Add(time.Second)
	if ageAfter != 30*time.Second {
		t.Errorf("a request counts as more urgent after %s", ageAfter)
	}
	q.age(began.Add(ageAfter))
	if old.class != classNormal || young.class != classBatch {
		t.Errorf("after %v the classes are %d and %d, want normal and batch", ageAfter, old.class, young.class)
	}
	q.age(began.Add(ageAfter + time.Second))
	q.age(began.Add(2 * ageAfter))
	if old.class != classInteractive || young.class != classNormal {
		t.Errorf("later the classes are %d and %d, want interactive and normal", old.class, young.class)
	}
	if q.pop("m") != old || q.pop("m") != young || q.pop("m") != nil {
		t.Error("requests that aged go in another order, or are lost")
	}
}

// One tenant's backlog does not hold up another's first request: one request of each that waits goes before it, whatever they
// cost, and whatever it costs itself.
func TestAFloodHoldsNobodyUp(t *testing.T) {
	seeds(t, func(t *testing.T, r *rand.Rand) {
		f := newFair(func(tenant string) int { return 1 + int(tenant[0])%5 })
		flood := func(tenant string) { f.push(costing(tenant, "", 1+r.Int64N(1<<r.IntN(20)))) }
		for i := range 1000 {
			flood(string(rune('a' + i%(1+r.IntN(20)))))
		}
		for range 300 {
			for range r.IntN(10) {
				flood(f.pop(false).req.Tenant)
			}
			first := costing("victim", "", 1+r.Int64N(1<<20))
			f.push(first)
			gone := map[string]int{}
			for it := f.pop(false); it != first; it = f.pop(false) {
				if gone[it.req.Tenant]++; gone[it.req.Tenant] > 1 {
					t.Fatalf("a second request of %s goes before the first of another tenant", it.req.Tenant)
				}
				flood(it.req.Tenant)
			}
			for f.owes("victim") { // it has had its part
				flood(f.pop(false).req.Tenant)
			}
		}
	})
}

// owes reports whether a tenant waits for the others to get what it got.
func (f *fair) owes(tenant string) bool {
	s := f.tenants[tenant]
	return s != nil && s.start > f.round
}

// A tenant that sends one request after the other, and never has two waiting, gets no more than its share either.
func TestWhatATenantOwesIsKept(t *testing.T) {
	t.Parallel()
	f := newFair(equal)
	got := map[string]int64{}
	f.push(costing("few", "", 5000))
	f.push(costing("many", "", 100))
	for range 10_000 {
		f.push(costing("many", "", 100))
		it := f.pop(false)
		got[it.req.Tenant] += it.cost
		if it.req.Tenant == "few" {
			f.push(costing("few", "", 5000))
		}
	}
	if few, many := got["few"], got["many"]; few > many+5100 || many > few+5100 {
		t.Errorf("one got %d tokens, and the other %d", few, many)
	}
}

// What a tenant got while nobody else waited it owes nobody.
func TestNobodyOwesWhatNobodyWanted(t *testing.T) {
	t.Parallel()
	f := newFair(equal)
	for range 100 {
		f.push(costing("alone", "", 1000))
		f.pop(false)
	}
	f.push(costing("late", "", 1000))
	f.push(costing("late", "", 1000))
	f.push(costing("alone", "", 1000))
	if it := f.pop(false); it.req.Tenant != "late" {
		t.Error("who came first goes second")
	}
	if it := f.pop(false); it.req.Tenant != "alone" {
		t.Error("a tenant waits for what it got while nobody else waited")
	}
	for f.pop(false) != nil {
	}
	if len(f.tenants) != 0 || len(f.turns) != 0 {
		t.Errorf("%d tenants are remembered although nobody waits", len(f.tenants))
	}
}

// However requests come and go, the sums that the forecast uses are those of what waits.
func TestTheFairQueueKeepsItsSums(t *testing.T) {
	seeds(t, func(t *testing.T, r *rand.Rand) {
		weights := map[string]int{}
		f := newFair(func(tenant string) int { return weights[tenant] })
		f.gate = &turnstile{r: r}
		var inside []*item
		for range 3000 {
			tenant := string(rune('a' + r.IntN(8)))
			switch r.IntN(7) {
			case 0, 1, 2:
				weights[tenant] = r.IntN(5)
				it := costing(tenant, "", []int64{100, 200, 1 + r.Int64N(5000)}[r.IntN(3)])
				f.push(it)
				inside = append(inside, it)
			case 3, 4, 5:
				it := f.pop(false)
				if it != nil && r.IntN(10) == 0 {
					f.unpop(it)
				} else if it != nil {
					inside = slices.DeleteFunc(inside, func(other *item) bool { return other == it })
				}
			case 6:
				if len(inside) > 0 {
					i := r.IntN(len(inside))
					f.remove(inside[i])
					inside = slices.Delete(inside, i, i+1)
				}
				for _, s := range f.tenants {
					if s.aside && r.IntN(2) == 0 {
						f.takeBack(s)
					}
				}
			}
			wantSums(t, f, len(inside))
		}
	})
}

func wantSums(t *testing.T, f *fair, inside int) {
	t.Helper()
	var tokens, weights, due int64
	for _, s := range f.tenants {
		inside -= s.items.Len()
		if s.aside || s.items.Len() == 0 {
			continue
		}
		tokens, weights = tokens+s.tokens, weights+s.weight
		if s.start <= f.round {
			due += s.items.Front().Value.(*item).cost
		}
	}
	if f.tokens != tokens || f.weights != weights || f.due != due || inside != 0 {
		t.Fatalf("the sums are %d tokens, weights of %d and %d due, want %d, %d and %d; %d requests are missing", f.tokens, f.weights, f.due, tokens, weights, due, inside)
	}
}

// turnstile is a gate that lets some pass.
type turnstile struct{ r *rand.Rand }

func (g *turnstile) limited(tenant string) bool     { return tenant < "c" }
func (g *turnstile) admit(*fair, *share, bool) bool { return g.r.IntN(3) > 0 }

func BenchmarkQueue(b *testing.B) {
	for _, tenants := range []int{1, 1000} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			q := newQueue(equal)
			for i := range 10_000 {
				q.push(costing(fmt.Sprint("t", i%tenants), "", 1+r.Int64N(4000)))
			}
			b.ReportAllocs()
			for b.Loop() {
				it := q.pop("m")
				q.push(it)
			}
		})
	}
}
