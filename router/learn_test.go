package router

import (
	"math"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

func reported(worker string, requests, estimated, taken uint64) *schemas.Heartbeat {
	return &schemas.Heartbeat{Worker: worker, Models: []schemas.ModelBeat{
		{Model: "m", Finished: &schemas.ModelUsage{Requests: requests, EstTokens: estimated, Tokens: taken}},
	}}
}

func TestCorrectionsLearn(t *testing.T) {
	t.Parallel()
	c := newCorrections()
	near := func(want float64) {
		t.Helper()
		if got := c.of("m"); math.Abs(got-want) > 0.02 {
			t.Errorf("correction %.3f, want %.3f", got, want)
		}
	}
	near(1)
	c.learn(reported("w1", 1, 100, 50)) // one request says little
	near(1)
	for n := uint64(2); n <= 600; n++ {
		c.learn(reported("w1", n, 100*n, 50*n))
	}
	near(0.5)
	c.learn(reported("w1", 600, 60000, 30000)) // nothing new
	near(0.5)
	c.learn(reported("w1", 10, 1000, 500)) // it has started again
	near(0.5)
	c.forget("w1")
	c.learn(reported("w1", 2000, 200, 200_000_000)) // absurd
	near(maxCorrection)
	c.learn(reported("w2", 2000, 2_000_000, 0))
	near(minCorrection)
	c.learn(&schemas.Heartbeat{Worker: "w3", Models: []schemas.ModelBeat{{Model: "m"}, {Model: "other", Finished: &schemas.ModelUsage{}}}})
	near(minCorrection)
	if got := c.cost("other", 7); got != 7 {
		t.Errorf("cost of a model that nothing is known of: %d", got)
	}
	if got := c.cost("m", 3); got != 1 {
		t.Errorf("a request costs %d, want at least 1", got)
	}
}
