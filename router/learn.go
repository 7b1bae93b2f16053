package router

import (
	"math"

	"github.com/weir-llm/weir/schemas"
)

const (
	// learnedFrom is how many finished requests the correction of a model looks back on: one so long ago counts for 1/e.
	learnedFrom = 100
	// The correction stays within these bounds, whatever the workers report.
	minCorrection, maxCorrection = 0.1, 4.0
)

// corrections are how much more, or less, the requests of each model take than they are taken for. They learn from what the
// workers report of finished requests.
type corrections struct {
	factors map[string]float64
	seen    map[reporter]schemas.ModelUsage // last, of sums that only grow while the worker lives
}

type reporter struct{ worker, model string }

func newCorrections() *corrections {
	return &corrections{factors: make(map[string]float64), seen: make(map[reporter]schemas.ModelUsage)}
}

// learn takes in a heartbeat.
func (c *corrections) learn(h *schemas.Heartbeat) {
	for _, m := range h.Models {
		if m.Finished == nil {
			continue
		}
		from := reporter{h.Worker, m.Model}
		last, now := c.seen[from], *m.Finished
		c.seen[from] = now
		if now.Requests < last.Requests || now.EstTokens < last.EstTokens || now.Tokens < last.Tokens {
			last = schemas.ModelUsage{} // another worker of the same name
		}
		if now.Requests == last.Requests || now.EstTokens == last.EstTokens {
			continue
		}
		ratio := float64(now.Tokens-last.Tokens) / float64(now.EstTokens-last.EstTokens)
		trust := 1 - math.Exp(-float64(now.Requests-last.Requests)/learnedFrom)
		factor := c.of(m.Model)
		c.factors[m.Model] = min(max(factor+trust*(ratio-factor), minCorrection), maxCorrection)
	}
}

// forget drops what a worker that is gone had reported.
func (c *corrections) forget(worker string) {
	for from := range c.seen {
		if from.worker == worker {
			delete(c.seen, from)
		}
	}
}

// of is the correction of a model.
func (c *corrections) of(model string) float64 {
	if factor, ok := c.factors[model]; ok {
		return factor
	}
	return 1
}

// cost is what a request of a model counts for that was estimated at so many tokens.
func (c *corrections) cost(model string, estimate int64) int64 {
	return min(max(int64(float64(estimate)*c.of(model)), 1), maxCost)
}
