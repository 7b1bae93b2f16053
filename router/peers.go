package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// routerGone is how long a router may be silent.
const routerGone = schemas.RouterBeatMisses * schemas.RouterBeatInterval

// peers is what the heartbeats tell about the routers, and from it who serves which partition. All routers that hear the
// same beats come to the same answer, and what they disagree about for a moment costs a hand-over: the server serves one
// of them (docs/adr/0016). Times are local and monotonic.
type peers struct {
	self   schemas.RouterBeat // what ranks this router: its name, start and eligible partitions
	active int                // how many serve at once

	others map[string]*peer
	lost   map[int]bool // partitions whose router fell silent, until somebody serves them
	echo   time.Time    // when this router last heard itself
}

type peer struct {
	beat *schemas.RouterBeat
	seen time.Time
}

func newPeers(self schemas.RouterBeat, active int) *peers {
	return &peers{self: self, active: active, others: make(map[string]*peer), lost: make(map[int]bool)}
}

// hear takes in a heartbeat and reports whether the router is new. deaf says that this router has heard nothing for a
// while, not even itself: nobody can be blamed for a silence then.
func (p *peers) hear(b *schemas.RouterBeat, now time.Time) (joined, deaf bool) {
	if b.Router == p.self.Router {
		if deaf = now.Sub(p.echo) > routerGone/2; deaf {
			for _, other := range p.others {
				other.seen = now
			}
		}
		p.echo = now
		return false, deaf
	}
	if p.others[b.Router] == nil {
		p.others[b.Router], joined = &peer{}, true
	}
	p.others[b.Router].beat, p.others[b.Router].seen = b, now
	for _, partition := range b.Partitions {
		delete(p.lost, partition)
	}
	return joined, false
}

// listening reports whether this router hears what is said now.
func (p *peers) listening(now time.Time) bool { return now.Sub(p.echo) <= routerGone/2 }

// sweep drops the routers that fell silent while this one was listening, and returns their names.
func (p *peers) sweep(now time.Time) (gone []string) {
	if !p.listening(now) {
		return nil
	}
	for name, other := range p.others {
		if now.Sub(other.seen) < routerGone {
			continue
		}
		delete(p.others, name)
		if other.beat.Draining && len(other.beat.Partitions) == 0 {
			continue // it said goodbye
		}
		gone = append(gone, name)
		for _, partition := range other.beat.Partitions {
			p.lost[partition] = true
		}
	}
	return gone
}

// first reports whether this router is the eldest of those that live.
func (p *peers) first() bool {
	live := p.live(nil)
	return len(live) > 0 && live[0].Router == p.self.Router
}

// live is the routers that serve, the eldest first. The partitions are those that this router serves.
func (p *peers) live(partitions []int) (all []*schemas.RouterBeat) {
	self := p.self
	self.Partitions = partitions
	for _, other := range p.others {
		if !other.beat.Draining {
			all = append(all, other.beat)
		}
	}
	if !self.Draining {
		all = append(all, &self)
	}
	slices.SortFunc(all, func(a, b *schemas.RouterBeat) int {
		return cmp.Or(cmp.Compare(a.Started, b.Started), cmp.Compare(a.Router, b.Router))
	})
	return all
}

// mine is the partitions that this router should serve, when it serves those given. Whoever serves a partition keeps it,
// the eldest when several do; what nobody serves goes to whoever has least, and so does what one has two more of than
// another.
func (p *peers) mine(partitions []int) (mine []int) {
	live := p.live(partitions)
	var holder [schemas.Partitions]*schemas.RouterBeat
	load := make(map[*schemas.RouterBeat]int)
	for i := range holder {
		if holder[i] = firstOf(p.candidates(live, i), func(r *schemas.RouterBeat) bool { return slices.Contains(r.Partitions, i) }); holder[i] != nil {
			load[holder[i]]++
		}
	}
	for i := range holder {
		if able := p.candidates(live, i); holder[i] == nil && len(able) > 0 {
			holder[i] = leastLoaded(able, load)
			load[holder[i]]++
		}
	}
	for i := schemas.Partitions - 1; i >= 0; i-- {
		if able := p.candidates(live, i); len(able) > 0 {
			if least := leastLoaded(able, load); load[least]+1 < load[holder[i]] {
				load[holder[i]]--
				load[least]++
				holder[i] = least
			}
		}
		if holder[i] != nil && holder[i].Router == p.self.Router {
			mine = append(mine, i)
		}
	}
	slices.Sort(mine)
	return mine
}

// candidates is those that may serve a partition: the eldest of the eligible, as many as are active at once.
func (p *peers) candidates(live []*schemas.RouterBeat, partition int) (all []*schemas.RouterBeat) {
	for _, r := range live {
		if len(all) < p.active && slices.Contains(r.Eligible, partition) {
			all = append(all, r)
		}
	}
	return all
}

func firstOf(routers []*schemas.RouterBeat, is func(*schemas.RouterBeat) bool) *schemas.RouterBeat {
	if i := slices.IndexFunc(routers, is); i >= 0 {
		return routers[i]
	}
	return nil
}

// leastLoaded is the eldest of those with least.
func leastLoaded(routers []*schemas.RouterBeat, load map[*schemas.RouterBeat]int) *schemas.RouterBeat {
	return slices.MinFunc(routers, func(a, b *schemas.RouterBeat) int { return cmp.Compare(load[a], load[b]) })
}
