package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// The model: requests of one tenant, the stored work, the log of results, the record of balances, and a router that may die
// at any step. Time stands still, so that the balance that must be there can be told exactly.

// fate is what becomes of a request that was dispatched.
type fate struct {
	name   string
	charge schemas.Charge
}

var fates = []fate{
	{"done", schemas.Charge{Requests: 1, Tokens: 70}},
	{"long", schemas.Charge{Requests: 1, Tokens: 250}},
	{"failed", schemas.Charge{}},
}

type modelRequest struct {
	queued bool   // its message is in LLM_REQUESTS
	held   bool   // by the router that lives
	stored bool   // its work item is in LLM_WORK
	ended  string // its fate, when its result is stored
	erased bool   // a tombstone is in the place of its result
	work   Sent
	tried  int // dispatches
}

type world struct {
	requests []*modelRequest
	log      []*Settled // by sequence from 1; nil: purged
	record   []byte
	ledger   *Ledger
	tail     int // how far the router has read the log
}

func newWorld(n int) *world {
	w := &world{}
	for range n {
		w.requests = append(w.requests, &modelRequest{queued: true})
	}
	w.takeOver()
	return w
}

var modelLimits = fixed(Limits{RequestsPerMinute: 100, TokensPerMinute: 10_000, MaxInFlight: 10, Budget: Budget{Tokens: 1_000_000}})

const reserved = 100

// takeOver is a new router after the death of the one before.
func (w *world) takeOver() {
	var snapshot *Snapshot
	if w.record != nil {
		var err error
		if snapshot, err = DecodeSnapshot(w.record); err != nil {
			panic(err)
		}
	}
	var sent []Sent
	for _, r := range w.requests {
		r.held = false
		if r.stored {
			sent = append(sent, r.work)
		}
	}
	var settled []Settled
	for _, s := range w.log {
		if s != nil {
			settled = append(settled, *s)
		}
	}
	w.ledger, w.tail = Restore(modelLimits, snapshot, sent, settled, begin), len(w.log)
}

// step is something that may happen now.
type step struct {
	name string
	do   func(w *world)
}

func (w *world) steps() (all []step) {
	add := func(name string, do func(*world)) { all = append(all, step{name, do}) }
	for i, r := range w.requests {
		name := fmt.Sprint("r", i, " ")
		id := request(i)
		switch {
		case r.queued && !r.held: // delivered, or delivered again
			add(name+"admit", func(w *world) {
				w.ledger.Hold(id, tokens(reserved), at(time.Hour), begin)
				w.requests[i].held = true
			})
		case r.queued && r.held && r.tried < 2:
			add(name+"dispatch", func(w *world) { w.dispatch(i); w.ack(i) })
			add(name+"dispatch, die before ack", func(w *world) { w.dispatch(i); w.takeOver() })
			if r.tried == 0 {
				add(name+"cancel while waiting", func(w *world) {
					w.ledger.ReleaseUnsent(id, begin)
					w.requests[i].queued, w.requests[i].held, w.requests[i].tried = false, false, 2
					w.requests[i].ended = "cancelled"
				})
			}
		}
		if r.stored && r.ended == "" {
			for _, f := range fates {
				add(name+f.name, func(w *world) { w.end(i, f) })
			}
		}
		if r.stored && r.ended != "" {
			add(name+"work acked", func(w *world) { w.requests[i].stored = false })
		}
		if r.ended != "" && r.ended != "cancelled" && !r.erased && i == 0 {
			add(name+"erase", func(w *world) { w.erase(i) })
		}
	}
	if w.tail < len(w.log) {
		add("read", func(w *world) { w.read() })
	}
	add("snapshot", func(w *world) {
		data, err := w.ledger.Snapshot(begin).Encode()
		if err != nil {
			panic(err)
		}
		w.record = data
	})
	add("die", func(w *world) { w.takeOver() })
	return all
}

// dispatch stores the work item, unless the stream knows its message id.
func (w *world) dispatch(i int) {
	r := w.requests[i]
	w.ledger.Hold(request(i), tokens(reserved), at(time.Hour), begin)
	w.ledger.Sent(request(i))
	if r.tried++; r.tried == 1 {
		r.stored, r.work = true, Sent{Identity: request(i), Reserve: *tokens(reserved), At: begin, Until: at(time.Hour)}
	}
}

func (w *world) ack(i int) { w.requests[i].queued, w.requests[i].held = false, false }

func (w *world) end(i int, f fate) {
	w.requests[i].ended = f.name
	charge := f.charge
	charge.Reserve, charge.Sent = *tokens(reserved), begin
	w.log = append(w.log, &Settled{Identity: request(i), Sequence: uint64(len(w.log) + 1), At: begin, Charge: &charge})
}

// erase puts a tombstone in the place of a result, which carries its charge.
func (w *world) erase(i int) {
	w.requests[i].erased = true
	for n, s := range w.log {
		if s != nil && s.Identity == request(i) {
			w.log[n] = nil
			tombstone := *s
			charge := *s.Charge
			charge.Of = s.Sequence
			tombstone.Sequence, tombstone.Charge = uint64(len(w.log)+1), &charge
			w.log = append(w.log, &tombstone)
			return
		}
	}
}

func (w *world) read() {
	for w.tail < len(w.log) {
		w.tail++
		if s := w.log[w.tail-1]; s != nil {
			w.ledger.Settle(s, begin)
			return
		}
	}
}

// heal is what the router does about reserves whose result does not come.
func (w *world) heal() {
	for _, id := range w.ledger.Doubtful(100, at(30*time.Minute)) {
		for n, s := range w.log {
			if s != nil && s.Identity == id && uint64(n+1) <= w.ledger.Applied() {
				w.ledger.Release(id, begin)
			}
		}
	}
}

// check compares the balances with what must be there once all that is logged is read.
func (w *world) check() error {
	for w.tail < len(w.log) {
		w.read()
	}
	w.heal()
	want := Balance{Tokens: 10_000, Requests: 100}
	for i, r := range w.requests {
		runs := r.ended == "" && (r.stored || r.held)
		again := r.ended != "" && r.held && w.ledger.Holds(request(i)) // it was delivered again after it had ended
		if runs || again {
			want.Tokens -= reserved
			want.Requests--
			want.InFlight++
			want.HeldTokens += reserved
		}
		for _, f := range fates {
			if r.ended == f.name {
				want.Tokens -= float64(f.charge.Tokens)
				want.Requests -= float64(f.charge.Requests)
				want.SpentTokens += f.charge.Tokens
			}
		}
	}
	got := Balance{Tokens: 10_000, Requests: 100}
	if all := w.ledger.Balances(begin); len(all) > 0 {
		got = all[0]
	}
	want.Tenant, want.Limits, want.WindowStart, want.Window = got.Tenant, got.Limits, got.WindowStart, got.Window
	if got != want {
		return fmt.Errorf("balances are\n%+v, want\n%+v", got, want)
	}
	return nil
}

// key tells worlds apart in which different things can still happen.
func (w *world) key() string {
	var b strings.Builder
	for _, r := range w.requests {
		fmt.Fprintf(&b, "%v %v %v %s %v %d|", r.queued, r.held, r.stored, r.ended, r.erased, r.tried)
	}
	for _, s := range w.log {
		if s == nil {
			b.WriteString("-|")
			continue
		}
		fmt.Fprintf(&b, "%s %s|", s.Request, s.Charge.String())
	}
	ledger := *w.ledger
	data, err := (&ledger).Snapshot(begin).Encode()
	if err != nil {
		panic(err)
	}
	var holds []string
	for id, h := range w.ledger.holds {
		holds = append(holds, fmt.Sprint(id.Request, h.sent))
	}
	slices.Sort(holds)
	fmt.Fprintf(&b, "%d %s %s %s", w.tail, holds, data, w.record)
	return b.String()
}

// TestEveryInterleaving goes through all that can happen to two requests, up to a number of steps, in every order: admitted,
// cancelled, dispatched with and without the acknowledgement, done, failed, used more than was reserved, erased, read,
// stored, and the router's death at any point. Nothing is counted twice, and nothing is free.
func TestEveryInterleaving(t *testing.T) {
	depth := 8
	if testing.Short() {
		depth = 7
	}
	seen := map[string]bool{}
	paths := [][]int{nil}
	checked := 0
	for d := 0; d <= depth; d++ {
		var next [][]int
		for _, path := range paths {
			w, names := follow(path)
			key := w.key()
			if seen[key] {
				continue
			}
			seen[key] = true
			for n := range w.steps() {
				next = append(next, append(slices.Clone(path), n))
			}
			checked++
			if err := w.check(); err != nil {
				t.Fatalf("after %s: %v", strings.Join(names, ", "), err)
			}
		}
		paths = next
	}
	if checked < 2000 {
		t.Errorf("only %d states were reached", checked)
	}
	t.Logf("%d states", checked)
}

// follow makes the world that a path leads to.
func follow(path []int) (w *world, names []string) {
	w = newWorld(2)
	for _, n := range path {
		s := w.steps()[n]
		s.do(w)
		names = append(names, s.name)
	}
	return w, names
}

// TestRandomWalks goes further, with more requests.
func TestRandomWalks(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		w, names := newWorld(4), []string(nil)
		for range 60 {
			steps := w.steps()
			s := steps[random.IntN(len(steps))]
			s.do(w)
			names = append(names, s.name)
		}
		if err := w.check(); err != nil {
			t.Fatalf("seed %d, after %s: %v", seed, strings.Join(names, ", "), err)
		}
	}
}
