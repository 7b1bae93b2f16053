package router

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

var everywhere = []int{0, 1, 2, 3}

// town is routers that hear each other, each with the partitions that it serves.
type town struct {
	active int
	names  []string // the eldest first
	peers  map[string]*peers
	serves map[string][]int
}

func newTown(active int) *town {
	return &town{active: active, peers: map[string]*peers{}, serves: map[string][]int{}}
}

func (o *town) join(name string, eligible []int) {
	o.names = append(o.names, name)
	self := schemas.RouterBeat{V: 1, Router: name, Started: int64(len(o.names)), Eligible: eligible}
	o.peers[name] = newPeers(self, o.active)
}

func (o *town) leave(name string) {
	delete(o.peers, name)
	delete(o.serves, name)
}

// settle lets every router hear every other and do what follows, as often as it takes, and says who serves what.
func (o *town) settle(t *testing.T) map[string][]int {
	t.Helper()
	for range 10 {
		moved := false
		for _, name := range o.names {
			p := o.peers[name]
			if p == nil {
				continue
			}
			clear(p.others)
			for other, state := range o.peers {
				beat := state.self
				beat.Partitions = o.serves[other]
				p.hear(&beat, time.Now())
			}
			if mine := p.mine(o.serves[name]); !cmp.Equal(mine, o.serves[name]) {
				moved = true
				if o.serves[name] = mine; mine == nil {
					delete(o.serves, name)
				}
			}
		}
		if !moved {
			return o.serves
		}
	}
	t.Fatalf("the routers never agree: %v", o.serves)
	return nil
}

func (o *town) want(t *testing.T, what string, want map[string][]int) {
	t.Helper()
	if diff := cmp.Diff(want, o.settle(t)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestOneServesAndTheOthersStandBy(t *testing.T) {
	t.Parallel()
	o := newTown(1)
	o.join("b", everywhere)
	o.join("a", everywhere)
	o.want(t, "two routers", map[string][]int{"b": everywhere})
	o.join("c", everywhere)
	o.want(t, "a third", map[string][]int{"b": everywhere})
	o.leave("b")
	o.want(t, "the eldest is gone", map[string][]int{"a": everywhere})
}

func TestPartitionsAreSpread(t *testing.T) {
	t.Parallel()
	o := newTown(3)
	o.join("a", everywhere)
	o.want(t, "alone", map[string][]int{"a": everywhere})
	o.join("b", everywhere)
	o.want(t, "two", map[string][]int{"a": {0, 1}, "b": {2, 3}})
	o.join("c", everywhere)
	o.join("d", everywhere)
	o.want(t, "three of four", map[string][]int{"a": {0, 1}, "b": {2}, "c": {3}})
	o.leave("a")
	o.want(t, "what the dead one had goes to the others, and they keep theirs", map[string][]int{"b": {1, 2}, "c": {3}, "d": {0}})
	o.leave("c")
	o.leave("d")
	o.want(t, "one is left", map[string][]int{"b": everywhere})
}

func TestRoutersServeOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	o := newTown(1)
	o.join("a", []int{0, 1})
	o.join("b", []int{2})
	o.join("c", []int{1, 2})
	o.want(t, "one active router for each partition; nobody for the last", map[string][]int{"a": {0, 1}, "b": {2}})
	o.leave("a")
	o.want(t, "a standby for a part", map[string][]int{"b": {2}, "c": {1}})
}

func TestEveryFleetAgrees(t *testing.T) {
	t.Parallel()
	for active := 1; active <= schemas.Partitions; active++ {
		o := newTown(active)
		for n := range 6 {
			name := fmt.Sprint("r", n)
			o.join(name, everywhere)
			if n%2 == 1 { // a split: each thinks that it is alone
				for _, other := range o.names {
					o.serves[other] = everywhere
				}
			}
			served := map[int]int{}
			most, least := 0, schemas.Partitions
			for i, partitions := range o.settle(t) {
				if o.peers[i] != nil && len(partitions) > 0 {
					most, least = max(most, len(partitions)), min(least, len(partitions))
				}
				for _, p := range partitions {
					served[p]++
				}
			}
			if !cmp.Equal(served, map[int]int{0: 1, 1: 1, 2: 1, 3: 1}) || most-least > 1 {
				t.Errorf("%d active of %d routers: %v", active, n+1, o.serves)
			}
		}
	}
}

func TestARouterThatFellSilentIsGone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := newPeers(schemas.RouterBeat{Router: "a", Started: 2, Eligible: everywhere}, 1)
	beat := func(name string, partitions ...int) *schemas.RouterBeat {
		return &schemas.RouterBeat{Router: name, Started: 1, Eligible: everywhere, Partitions: partitions}
	}
	hears := func(d time.Duration, beats ...*schemas.RouterBeat) {
		for range int(d / schemas.RouterBeatInterval) {
			now = now.Add(schemas.RouterBeatInterval)
			p.hear(beat("a"), now)
			for _, b := range beats {
				p.hear(b, now)
			}
		}
	}
	hears(time.Second, beat("b", 0, 3))
	if p.first() {
		t.Error("the younger router calls itself the first")
	}
	hears(routerGone - schemas.RouterBeatInterval)
	if gone := p.sweep(now); gone != nil {
		t.Errorf("%v are gone before their time", gone)
	}
	now = now.Add(10 * time.Second) // this router hears nothing, and cannot tell
	if gone := p.sweep(now); gone != nil {
		t.Errorf("%v are gone, as a deaf router says", gone)
	}
	hears(schemas.RouterBeatInterval)
	if gone := p.sweep(now); gone != nil {
		t.Errorf("%v are gone, as a router says that has just woken", gone)
	}
	hears(routerGone)
	if gone := p.sweep(now); !cmp.Equal(gone, []string{"b"}) || !p.lost[0] || !p.lost[3] || p.lost[1] {
		t.Errorf("%v are gone and have left %v", gone, p.lost)
	}
	if !p.first() || !cmp.Equal(p.mine(nil), everywhere) {
		t.Error("nobody follows")
	}
	leaving := beat("c")
	leaving.Draining = true
	hears(time.Second, leaving)
	if !p.first() {
		t.Error("a router that leaves is the first")
	}
	hears(routerGone)
	if gone := p.sweep(now); gone != nil {
		t.Errorf("%v were lost, although they said goodbye", gone)
	}
}
