package router

import (
	"math"
	"time"
)

const (
	// paceMemory is how long the pace of a model is remembered: what was seen so long ago counts for 1/e.
	paceMemory = 30 * time.Second
	// paceLearned is how long requests must have waited for a model before its pace is believed.
	paceLearned = 2 * time.Second
)

// pace is how fast the requests of a model go while some wait: then the workers have as much as they can take, so that the
// tokens which leave the queue are the tokens which the workers can do.
type pace struct {
	tokens  float64 // that left the queue in time
	seconds float64 // during which some waited; both fade with paceMemory
	seen    time.Time
}

// left notes what has just left the queue. What leaves while nobody waits for the workers is not counted.
func (p *pace) left(cost int64) {
	if !p.seen.IsZero() {
		p.tokens += float64(cost)
	}
}

// wait notes that requests have been waiting for the workers since the last look.
func (p *pace) wait(now time.Time) {
	if !p.seen.IsZero() {
		passed := now.Sub(p.seen).Seconds()
		keep := math.Exp(-passed / paceMemory.Seconds())
		p.tokens *= keep
		p.seconds = p.seconds*keep + passed
	}
	p.seen = now
}

// rest notes that nobody waits for them: what goes now says nothing of what could go.
func (p *pace) rest() { p.seen = time.Time{} }

// known reports whether some have waited for long enough to tell.
func (p *pace) known() bool { return p.seconds >= paceLearned.Seconds() && p.tokens > 0 }

// takes is how long the model takes for so many tokens; 0 while nobody knows.
func (p *pace) takes(tokens float64) time.Duration {
	if !p.known() {
		return 0
	}
	return time.Duration(tokens / p.tokens * p.seconds * float64(time.Second))
}

// ahead is how many tokens are likely to go before a request of a tenant that has own tokens before it in its line: those,
// and of other tenants what their weights say, but no more than they ask for; more urgent classes go first, less the floor
// of the class; and those below take their floors.
func (c *classes) ahead(in class, tenant string, own int64) float64 {
	line := c.lines[in]
	before := min(float64(own)+line.before(tenant, own), float64(line.tokens))
	urgent, floored := 0.0, 0.0
	for i, other := range c.lines {
		switch {
		case class(i) < in:
			urgent += float64(other.tokens)
		case class(i) > in && !other.empty():
			floored += floors[i]
		}
	}
	if floor := floors[in]; floor > 0 && urgent > 0 {
		return min(before+urgent, before/floor+owedFirst)
	}
	return before / (1 - floored)
}
