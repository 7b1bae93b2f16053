package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// beatSelf publishes the router's heartbeat when it is time, or when there is news. The figures come less often.
func (l *loop) beatSelf(now time.Time) {
	if !l.soon && now.Sub(l.beaten) < schemas.RouterBeatInterval-tick/2 {
		return
	}
	l.soon, l.beaten = false, now
	beat := l.peers.self
	beat.Draining, beat.Partitions = l.draining, l.serving()
	if now.Sub(l.figured) >= schemas.HeartbeatInterval-tick/2 {
		l.figured = now
		beat.Figures = l.figures(now)
		l.measure()
	}
	if err := l.bus.RouterBeat(&beat); err != nil {
		l.log.Debug("heartbeat not sent", keyError, err)
	}
}

// figures is what the router holds.
func (l *loop) figures(now time.Time) *schemas.RouterFigures {
	f := &schemas.RouterFigures{Held: l.held.count, Queued: l.queue.len()}
	tenants := make(map[string]*schemas.TenantQueue)
	for model, lane := range l.queue.models {
		f.Models = append(f.Models, schemas.ModelQueue{Model: model, Queued: lane.count})
		for _, line := range lane.lines {
			line.tell(tenants, now)
		}
		for tenant := range tenants {
			wait := l.forecastNew(model, tenant, classNormal)
			tenants[tenant].PredictMS = max(tenants[tenant].PredictMS, wait.Milliseconds())
		}
	}
	for model, o := range l.fleet.models {
		on := slices.IndexFunc(f.Models, func(m schemas.ModelQueue) bool { return m.Model == model })
		if on < 0 {
			on, f.Models = len(f.Models), append(f.Models, schemas.ModelQueue{Model: model})
		}
		f.Models[on].Outstanding = o.sending + len(o.pending)
	}
	for _, t := range tenants {
		l.books.figure(t)
		f.Tenants = append(f.Tenants, *t)
	}
	slices.SortFunc(f.Models, func(a, b schemas.ModelQueue) int {
		return cmp.Or(cmp.Compare(b.Queued, a.Queued), cmp.Compare(a.Model, b.Model))
	})
	slices.SortFunc(f.Tenants, func(a, b schemas.TenantQueue) int {
		return cmp.Or(cmp.Compare(b.Queued, a.Queued), cmp.Compare(a.Tenant, b.Tenant))
	})
	f.More = max(0, len(f.Tenants)-schemas.BeatTenants)
	f.Tenants = f.Tenants[:len(f.Tenants)-f.More]
	f.Models = f.Models[:min(len(f.Models), beatModels)]
	return f
}

// beatModels is how many models a heartbeat tells of at most: those with most waiting.
const beatModels = 64

// tell adds what waits to the figures of the tenants.
func (f *fair) tell(tenants map[string]*schemas.TenantQueue, now time.Time) {
	for name, s := range f.tenants {
		if s.items.Len() == 0 {
			continue // it only owes
		}
		t := tenants[name]
		if t == nil {
			t = &schemas.TenantQueue{Tenant: name}
			tenants[name] = t
		}
		t.Queued += s.items.Len()
		first := s.items.Front().Value.(*item)
		t.WaitingMS = max(t.WaitingMS, now.Sub(first.arrived).Milliseconds())
	}
}
