package router

import (
	"encoding/json"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// limitQuiet is how long a tenant must have been within its limits until that is told. It bounds how much is said.
const limitQuiet = 10 * time.Second

// limitState is a tenant that has been at a limit lately.
type limitState struct {
	since, last time.Time
	count       int
}

// reached notes that a request met a limit of its tenant.
func (b *books) reached(tenant string) {
	b.loop.meters.limited.Inc()
	now := time.Now()
	s := b.said[tenant]
	if s == nil {
		s = &limitState{since: now}
		b.said[tenant] = s
		b.say(tenant, schemas.LimitEvent{Tenant: tenant, State: schemas.LimitReached})
	}
	s.last = now
	s.count++
}

// sayWhoLeft tells which tenants have been within their limits for a while.
func (b *books) sayWhoLeft(now time.Time) {
	for tenant, s := range b.said {
		if b.throttled[tenant] != nil {
			s.last = now
		}
		if now.Sub(s.last) >= limitQuiet {
			delete(b.said, tenant)
			b.say(tenant, schemas.LimitEvent{Tenant: tenant, State: schemas.LimitLeft, Requests: s.count, Seconds: int(now.Sub(s.since).Seconds())})
		}
	}
}

func (b *books) say(tenant string, e schemas.LimitEvent) {
	data, err := json.Marshal(e)
	if err != nil {
		return
	}
	b.vault.Event(schemas.EventLimit, data)
	b.log.Info("limits of a tenant", keyTenant, tenant, "state", string(e.State), keyCount, e.Requests)
}

func (b *books) measure() {
	b.loop.meters.throttled.Set(float64(len(b.throttled)))
}

// figure says at which of its limits a tenant is that waits, for the heartbeat.
func (b *books) figure(q *schemas.TenantQueue) {
	if b == nil {
		return
	}
	if t := b.throttled[q.Tenant]; t != nil {
		q.Limit = limitNames[t.over]
		q.PredictMS = max(q.PredictMS, b.wait(q.Tenant).Milliseconds())
	}
}

// wait is how long no request of a tenant goes that waits for its limits; 0 when it does not, or nobody knows.
func (b *books) wait(tenant string) time.Duration {
	if b == nil {
		return 0
	}
	if t := b.throttled[tenant]; t != nil && !t.until.IsZero() {
		return max(time.Until(t.until), 0)
	}
	return 0
}

var limitNames = map[ledger.Over]string{
	ledger.OverRequests: "requests_per_minute", ledger.OverTokens: "tokens_per_minute", ledger.OverInFlight: "max_in_flight",
	ledger.OverReserved: "budget", ledger.OverBudget: "budget",
}
