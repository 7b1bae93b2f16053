package router

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// flooded is a model under a flood, in simulated time: nine tenants that ask for 95 % of their tenth each, and one that asks for
// ten times its own. It is what `go run ./bench fairness` measures, without the machine.
type flooded struct {
	queue *queue
	r     *rand.Rand
	cost  int64 // of a request
	now   time.Duration
	next  moments
	free  int

	waited []time.Duration // of the nine's requests
	got    map[string]float64
}

const (
	floodSlots   = 64
	floodAnswer  = 200 * time.Millisecond // on average
	floodHandOff = 10 * time.Millisecond  // at most, from the end of an answer until its place is known to be free
	floodCounted = 20 * time.Second
	floodWarmup  = 2 * time.Second
)

func newFlooded(r *rand.Rand, cost int64) *flooded {
	f := &flooded{queue: newQueue(equal), r: r, cost: cost, free: floodSlots, got: map[string]float64{}}
	share := floodAnswer * 10 / floodSlots // between two requests of a tenant that asks for its share
	for i := range 9 {
		f.visit(fmt.Sprint("t", i), time.Duration(float64(share)/0.95))
	}
	f.visit("flood", share/10)
	return f
}

// visit has a tenant send a request at each interval.
func (f *flooded) visit(tenant string, every time.Duration) {
	var send func()
	send = func() {
		it := costing(tenant, schemas.PriorityNormal, f.cost)
		f.queue.push(it)
		it.arrived = time.Unix(0, int64(f.now))
		f.after(every, send)
	}
	f.after(time.Duration(f.r.Int64N(int64(every))), send)
}

func (f *flooded) after(d time.Duration, do func()) { heap.Push(&f.next, moment{f.now + d, do}) }

func (f *flooded) run() {
	for f.now < floodWarmup+floodCounted {
		m := heap.Pop(&f.next).(moment)
		f.now = m.at
		m.do()
		for ; f.free > 0 && f.queue.len() > 0; f.free-- {
			f.serve(f.queue.pop("m"))
		}
	}
}

// serve has an answer take a place for as long as its length says, and until that is known.
func (f *flooded) serve(it *item) {
	f.after(floodAnswer*3/4+time.Duration(f.r.Int64N(int64(floodAnswer/2+floodHandOff))), func() { f.free++ })
	if f.now < floodWarmup {
		return
	}
	f.got[it.req.Tenant] += float64(it.cost)
	if it.req.Tenant != "flood" {
		f.waited = append(f.waited, f.now-time.Duration(it.arrived.UnixNano()))
	}
}

// TestAFloodInSimulatedTime holds the queue to the limits of the benchmark, whatever its requests count for: the nine wait a
// few turns at most, and everybody has a tenth. In a deficit round robin with turns of 512 tokens the nine waited half a second.
func TestAFloodInSimulatedTime(t *testing.T) {
	for _, cost := range []int64{18, 110, 600, 40_000} {
		t.Run(fmt.Sprint(cost), func(t *testing.T) {
			seeds(t, func(t *testing.T, r *rand.Rand) {
				f := newFlooded(r, cost)
				f.run()
				slices.Sort(f.waited)
				if p99 := f.waited[len(f.waited)*99/100]; p99 > 75*time.Millisecond {
					t.Errorf("of a hundred requests of the nine one waits %s, want at most 75 ms", p99)
				}
				if got := jain(f.got); got < 0.95 {
					t.Errorf("Jain index of what the ten got is %.3f, want at least 0.95", got)
				}
			})
		})
	}
}

func jain(got map[string]float64) float64 {
	sum, squares := 0.0, 0.0
	for _, tokens := range got {
		sum, squares = sum+tokens, squares+tokens*tokens
	}
	return sum * sum / float64(len(got)) / squares
}

// moment is when something happens.
type moment struct {
	at time.Duration
	do func()
}

type moments []moment

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, j int) bool { return m[i].at < m[j].at }
func (m moments) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)        { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any {
	all := *m
	last := all[len(all)-1]
	*m = all[:len(all)-1]
	return last
}
