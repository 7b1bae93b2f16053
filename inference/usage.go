package inference

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// usageTenants is how many tenants a worker keeps counters of, beside those that have something running.
const usageTenants = 1024

// usage is what the worker does for each tenant, for its heartbeat. It is safe for concurrent use.
type usage struct {
	mu      sync.Mutex
	tenants map[string]*tenantUsage
}

// tenantUsage are counters of a tenant.
type tenantUsage struct {
	running int          // guarded by usage.mu
	told    uint64       // guarded by usage.mu: tokens at the last heartbeat
	tokens  atomic.Int64 // of answers, since the worker started
}

func newUsage() *usage { return &usage{tenants: map[string]*tenantUsage{}} }

// begin counts a run of a tenant, until end is called with what it returns.
func (u *usage) begin(tenant string) *tenantUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.tenants[tenant]
	if t == nil {
		u.makeRoom()
		t = &tenantUsage{}
		u.tenants[tenant] = t
	}
	t.running++
	return t
}

func (u *usage) end(t *tenantUsage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.running--
}

// makeRoom forgets an eighth of the tenants when there are too many: idle ones, those first whose tokens have been told.
func (u *usage) makeRoom() {
	if len(u.tenants) < usageTenants {
		return
	}
	for _, untold := range []bool{false, true} {
		for name, t := range u.tenants {
			if len(u.tenants) <= usageTenants-usageTenants/8 {
				return
			}
			if t.running == 0 && (untold || uint64(t.tokens.Load()) == t.told) {
				delete(u.tenants, name)
			}
		}
	}
}

// beat is the tenants for which the worker runs most or has written most since the last call.
func (u *usage) beat() []schemas.TenantUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	type busy struct {
		schemas.TenantUsage
		news uint64
	}
	var all []busy
	for name, t := range u.tenants {
		tokens := uint64(t.tokens.Load())
		if news := tokens - t.told; news > 0 || t.running > 0 {
			all = append(all, busy{schemas.TenantUsage{Tenant: name, Running: t.running, Tokens: tokens}, news})
		}
		t.told = tokens
	}
	slices.SortFunc(all, func(a, b busy) int {
		return cmp.Or(cmp.Compare(b.news, a.news), cmp.Compare(b.Running, a.Running), cmp.Compare(a.Tenant, b.Tenant))
	})
	var told []schemas.TenantUsage
	for _, t := range all[:min(len(all), schemas.BeatTenants)] {
		told = append(told, t.TenantUsage)
	}
	return told
}

// count notes what was written of an answer. An answer in one piece counts when its result is kept.
func (r *run) count(f *schemas.Frame) {
	if f.Kind == schemas.KindDelta && r.tenant != nil {
		r.tenant.tokens.Add(int64(f.Count))
	}
}

// counted notes what a finished request took, beside what the router took it for.
func (r *run) counted() {
	s := r.ended
	if s == nil || s.Status != schemas.StatusCompleted || s.Usage == nil {
		return
	}
	if r.request != nil && !r.request.Stream && r.tenant != nil {
		r.tenant.tokens.Add(int64(s.Usage.CompletionTokens))
	}
	if r.work.Cost <= 0 {
		return
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.finished.Requests++
	r.m.finished.EstTokens += uint64(r.work.Cost)
	r.m.finished.Tokens += uint64(max(s.Usage.PromptTokens+s.Usage.CompletionTokens, 0))
}

// survives reports whether another worker can go on with the request, whatever is visible of it.
func (r *run) survives() bool {
	if !r.request.Continuable() {
		return false
	}
	for _, mode := range r.m.midstream.Order {
		if slices.ContainsFunc(r.m.backends, func(s Slot) bool { return r.survivesAt(s.Backend.Capabilities(), mode) }) && r.allows(mode) {
			return true
		}
	}
	return false
}

// survivesAt reports whether a backend can go on in that way with requests that allow it.
func (r *run) survivesAt(c Capabilities, mode schemas.Mode) bool {
	able := mode == schemas.ModeSplice && c.Deterministic || mode == schemas.ModeContinue && c.Continue != ContinueNone
	return able && dialectOf(r.op, c).spliceable() && !r.thinks(c)
}

// allows reports whether the request can be gone on with in that way. It is asked last, since it may read the whole body.
func (r *run) allows(mode schemas.Mode) bool {
	if mode == schemas.ModeSplice {
		return r.request.Greedy()
	}
	return len(openai.Stops(r.request.Body)) == 0
}

// repeatable notes that another worker can go on with an item, whatever is visible.
func (m *model) repeatable(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.repeat = append(m.repeat, sequence)
}
