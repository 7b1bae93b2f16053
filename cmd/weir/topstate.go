package main

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/schemas"
)

const (
	// topForgets is how long a process that fell silent is still shown.
	topForgets = 10 * time.Second
	// topSilent is the silence after which that is said.
	topSilent = schemas.HeartbeatMisses * schemas.HeartbeatInterval
)

// board gathers heartbeats into what weir top shows. It is safe for concurrent use.
type board struct {
	mu      sync.Mutex
	workers map[string]*workerSeen
	routers map[string]*routerSeen
}

type workerSeen struct {
	beat     *schemas.Heartbeat
	seen     time.Time
	backends map[string][]schemas.BackendBeat // model: the last figures
	tenants  map[string]tokensSeen
}

// tokensSeen is a counter of tokens: as last told, and as told before the last view.
type tokensSeen struct {
	running          int
	tokens, before   uint64
	told, toldBefore time.Time
	rate             float64 // of the last view
}

type routerSeen struct {
	beat    *schemas.RouterBeat
	figures *schemas.RouterFigures // the last
	seen    time.Time
}

func newBoard() *board {
	return &board{workers: map[string]*workerSeen{}, routers: map[string]*routerSeen{}}
}

// worker takes in a heartbeat. Figures that it does not have are those of before.
func (b *board) worker(h *schemas.Heartbeat, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.workers[h.Worker]
	if w == nil {
		w = &workerSeen{backends: map[string][]schemas.BackendBeat{}, tenants: map[string]tokensSeen{}}
		b.workers[h.Worker] = w
	}
	w.beat, w.seen = h, now
	figures := len(h.Models) == 0
	for _, m := range h.Models {
		if m.Finished != nil {
			w.backends[m.Model], figures = m.Backends, true
		}
	}
	if figures {
		w.figures(h.Tenants, now)
	}
}

// figures takes in the counters of tenants. One that is not among them has nothing running.
func (w *workerSeen) figures(tenants []schemas.TenantUsage, now time.Time) {
	for name, t := range w.tenants {
		t.running, t.told = 0, now
		w.tenants[name] = t
	}
	for _, u := range tenants {
		t, known := w.tenants[u.Tenant]
		if t.running = u.Running; !known || u.Tokens < t.before {
			t.before, t.toldBefore, t.rate = u.Tokens, now, 0 // what was written before is no rate
		}
		t.tokens, t.told = u.Tokens, now
		w.tenants[u.Tenant] = t
	}
}

func (b *board) router(h *schemas.RouterBeat, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.routers[h.Router]
	if r == nil {
		r = &routerSeen{figures: &schemas.RouterFigures{}}
		b.routers[h.Router] = r
	}
	r.beat, r.seen = h, now
	if h.Figures != nil {
		r.figures = h.Figures
	}
}

// topView is what weir top shows at one moment, and a line of weir top --json.
type topView struct {
	Time    time.Time   `json:"time"`
	Tenants []topTenant `json:"tenants"`
	More    int         `json:"more_tenants,omitempty"` // that wait and are not told of
	Models  []topModel  `json:"models"`
	Workers []topWorker `json:"workers"`
	Routers []topRouter `json:"routers"`
}

type topTenant struct {
	Tenant    string  `json:"tenant"`
	Queued    int     `json:"queued"`
	Running   int     `json:"running"`
	WaitingMS int64   `json:"waiting_ms"`
	Rate      float64 `json:"tokens_per_second"`
	PredictMS int64   `json:"predict_ms,omitempty"`
	Limit     string  `json:"limit,omitempty"`
}

type topModel struct {
	Model       string `json:"model"`
	Workers     int    `json:"workers"`
	Slots       int    `json:"slots"`
	Used        int    `json:"used"`
	Queued      int    `json:"queued"`
	Outstanding int    `json:"outstanding"`
}

type topWorker struct {
	Worker   string                `json:"worker"`
	Model    string                `json:"model"`
	Slots    int                   `json:"slots"`
	Used     int                   `json:"used"`
	State    string                `json:"state"`
	Backends []schemas.BackendBeat `json:"backends,omitempty"`
}

type topRouter struct {
	Router     string `json:"router"`
	Partitions []int  `json:"partitions"`
	Held       int    `json:"held"`
	Queued     int    `json:"queued"`
	State      string `json:"state"`
}

// view is what has been heard, with rates since the last view.
func (b *board) view(now time.Time) *topView {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.workers, func(_ string, w *workerSeen) bool { return now.Sub(w.seen) > topForgets })
	maps.DeleteFunc(b.routers, func(_ string, r *routerSeen) bool { return now.Sub(r.seen) > topForgets })
	v := &topView{Time: now, Tenants: []topTenant{}, Models: []topModel{}, Workers: []topWorker{}, Routers: []topRouter{}}
	tenants, models := map[string]*topTenant{}, map[string]*topModel{}
	for name, r := range b.routers {
		v.addRouter(name, r, now, tenants, models)
	}
	for name, w := range b.workers {
		v.addWorker(name, w, now, models)
		if now.Sub(w.seen) <= topSilent {
			w.addTenants(tenants)
		}
	}
	for _, t := range tenants {
		if t.Queued+t.Running > 0 || t.Rate > 0 {
			v.Tenants = append(v.Tenants, *t)
		}
	}
	for _, m := range models {
		v.Models = append(v.Models, *m)
	}
	v.sort()
	return v
}

func (v *topView) sort() {
	slices.SortFunc(v.Tenants, func(a, b topTenant) int {
		return cmp.Or(cmp.Compare(b.Queued, a.Queued), cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Tenant, b.Tenant))
	})
	slices.SortFunc(v.Models, func(a, b topModel) int { return cmp.Compare(a.Model, b.Model) })
	slices.SortFunc(v.Workers, func(a, b topWorker) int {
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Model, b.Model))
	})
	slices.SortFunc(v.Routers, func(a, b topRouter) int { return cmp.Compare(a.Router, b.Router) })
}

func (v *topView) addRouter(name string, r *routerSeen, now time.Time, tenants map[string]*topTenant, models map[string]*topModel) {
	row := topRouter{Router: name, Partitions: r.beat.Partitions, Held: r.figures.Held, Queued: r.figures.Queued, State: "active"}
	switch {
	case now.Sub(r.seen) > topSilent:
		row.State = "silent"
	case r.beat.Draining:
		row.State = "draining"
	case len(r.beat.Partitions) == 0:
		row.State = "standby"
	}
	v.Routers = append(v.Routers, row)
	if row.State == "silent" {
		return // another holds what it held, or will
	}
	v.More += r.figures.More
	for _, q := range r.figures.Tenants {
		t := entry(tenants, q.Tenant)
		t.Tenant, t.Queued = q.Tenant, t.Queued+q.Queued
		t.WaitingMS, t.PredictMS = max(t.WaitingMS, q.WaitingMS), max(t.PredictMS, q.PredictMS)
		t.Limit = cmp.Or(q.Limit, t.Limit)
	}
	for _, q := range r.figures.Models {
		m := entry(models, q.Model)
		m.Model, m.Queued, m.Outstanding = modelName(q.Model), m.Queued+q.Queued, m.Outstanding+q.Outstanding
	}
}

func (v *topView) addWorker(name string, w *workerSeen, now time.Time, models map[string]*topModel) {
	for _, beat := range w.beat.Models {
		row := topWorker{Worker: name, Model: modelName(beat.Model), Slots: beat.Slots, Used: beat.Used, State: "serving", Backends: w.backends[beat.Model]}
		switch {
		case now.Sub(w.seen) > topSilent:
			row.State = "silent"
		case w.beat.Draining:
			row.State = "draining"
		}
		v.Workers = append(v.Workers, row)
		m := entry(models, beat.Model)
		m.Model = row.Model
		if row.State == "serving" {
			m.Workers, m.Slots, m.Used = m.Workers+1, m.Slots+beat.Slots, m.Used+beat.Used
		}
	}
}

// addTenants adds what the worker does for each, and begins the next measurement of rates.
func (w *workerSeen) addTenants(tenants map[string]*topTenant) {
	for name, seen := range w.tenants {
		t := entry(tenants, name)
		t.Tenant, t.Running = name, t.Running+seen.running
		if elapsed := seen.told.Sub(seen.toldBefore).Seconds(); elapsed > 0 {
			seen.rate = float64(seen.tokens-seen.before) / elapsed
		}
		t.Rate += seen.rate // of before, when nothing was told since
		seen.before, seen.toldBefore = seen.tokens, seen.told
		w.tenants[name] = seen
	}
}

func entry[T any](all map[string]*T, key string) *T {
	if all[key] == nil {
		all[key] = new(T)
	}
	return all[key]
}

func modelName(token string) string {
	if name, err := schemas.DecodeModel(token); err == nil {
		return name
	}
	return token
}
