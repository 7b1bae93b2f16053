package balance

import "time"

// forget is after how long, and then how fast, a member's latency loses its say while no call renews it, so that a member that was slow once gets
// another chance, and the half-life of what it remembers of its share.
const forget = 10 * time.Second

// member is a backend as the pool knows it. It is guarded by the pool's mutex; now is the pool's time.
type member struct {
	name      string
	hash      uint64
	weight    float64
	most      int
	slowStart time.Duration

	inFlight int
	tokens   int64 // of the calls in flight
	recent   int64 // tokens that it got, halved every so often
	latency  latency
	drained  bool
	warmed   bool          // it has its whole share
	warming  time.Duration // since when it has not

	breaker breakerState
	gate    gate
	limiter *limiter
}

// warmUp starts the slow start.
func (m *member) warmUp(now time.Duration) { m.warmed, m.warming = false, now }

// share is the part of its due that a member gets while it warms up, in (0,1].
func (m *member) share(now time.Duration) float64 {
	if m.warmed {
		return 1
	}
	share := float64(now-m.warming) / float64(m.slowStart)
	if share >= 1 {
		m.warmed = true
		return 1
	}
	return max(share, 0.01)
}

// limit is how many calls may run on a member that is not closed.
func (m *member) limit(now time.Duration) int {
	most := m.limiter.bound(m.most)
	if share := m.share(now); share < 1 {
		most = max(1, int(share*float64(most)))
	}
	return most
}

// free is how many more calls could start now.
func (m *member) free(now time.Duration) int {
	if m.drained || m.gate.closed(now) {
		return 0
	}
	return min(max(0, m.limit(now)-m.inFlight), m.breaker.allows(now))
}

// again is after how long free may grow without a call ending; zero if it does not.
func (m *member) again(now time.Duration) time.Duration {
	switch {
	case m.drained:
		return 0
	case m.breaker.opened(now) || m.gate.closed(now):
		return max(m.breaker.until, m.gate.until) - now
	case !m.warmed:
		return max(m.slowStart/time.Duration(m.most), time.Millisecond)
	}
	return 0
}

// load is the work of a member in relation to what it should have, if it gets so many tokens more. Half of them count,
// which is what spreads the rest of a division without favour to the heavy or the light (Sainte-Laguë).
func (m *member) load(more int64, now time.Duration) float64 {
	return (float64(m.tokens) + float64(more)/2) / (m.weight * m.share(now))
}

// latency is an average of the time to first token that follows a rise at once and a fall slowly.
type latency struct {
	value time.Duration
	at    time.Duration // of the last sample
}

func (l *latency) add(sample, now time.Duration) {
	if old := l.fading(now); sample < old {
		sample = old - (old-sample)*3/10
	}
	l.value, l.at = sample, now
}

// fading is the average, and less and less of it when it was not renewed for a while.
func (l *latency) fading(now time.Duration) time.Duration {
	return time.Duration(float64(l.value) / (1 + float64(max(0, now-l.at-forget))/float64(forget)))
}

const (
	firstRefusal = time.Second      // how long a member is left alone that says 429 and not for how long
	mostRefusal  = 30 * time.Second // the same after several in a row
	// MaxRetryAfter bounds what a Retry-After is believed; then one call finds out.
	MaxRetryAfter = 10 * time.Minute
)

// gate is closed while a member wants no calls.
type gate struct {
	until time.Duration
	pause time.Duration // for the next refusal that names none
}

func (g *gate) closed(now time.Duration) bool { return now < g.until }

// refuse closes the gate. Calls that began before it was closed last say nothing new about how long.
func (g *gate) refuse(began, now, retryAfter time.Duration) {
	if began < g.until && retryAfter <= 0 {
		return
	}
	pause := min(retryAfter, MaxRetryAfter)
	if retryAfter <= 0 {
		g.pause = min(max(2*g.pause, firstRefusal), mostRefusal)
		pause = g.pause
	}
	g.until = max(g.until, now+pause)
}

// accepted ends a row of refusals.
func (g *gate) accepted(began time.Duration) {
	if began >= g.until {
		g.pause = 0
	}
}
