package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-llm/weir/inference"
)

// Retry says how a call that failed before its first token is tried again.
type Retry struct {
	MaxTries int      `yaml:"max_tries,omitempty" min:"1" max:"100" doc:"Calls of the model for one request, and of each fallback; default 3."`
	Initial  Duration `yaml:"initial,omitempty" min:"1ms" max:"10m" doc:"First pause before a backend is called again; default 200ms."`
	Max      Duration `yaml:"max,omitempty" min:"1ms" max:"10m" doc:"Longest pause, also when the backend asks for more; default 5s."`
	Budget   Percent  `yaml:"budget,omitempty" doc:"Extra calls, of whatever kind, in relation to the requests of the model; default 10%, with a floor of 20 and one every 2s."`
}

// Hedge says when a request is put to a second backend because the first is slow to answer.
type Hedge struct {
	After    string  `yaml:"after,omitempty" doc:"How late the first token of a stream may be: a duration such as 800ms, or p95, which is what 95 of 100 took lately. Without it nothing is hedged."`
	MaxShare Percent `yaml:"max_share,omitempty" doc:"Hedged requests of all, within the retry budget; default 10%."`
}

// hedgeAtP95 is the value of after that stands for what is usual.
const hedgeAtP95 = "p95"

func (h Hedge) config() (inference.Hedge, error) {
	made := inference.Hedge{MaxShare: int(h.MaxShare), P95: h.After == hedgeAtP95}
	if h.After == "" || made.P95 {
		return made, nil
	}
	after, err := time.ParseDuration(h.After)
	if err != nil || after <= 0 || after > maxHedgeAfter {
		return made, fmt.Errorf("%q is neither p95 nor a duration up to %s", h.After, Duration(maxHedgeAfter))
	}
	made.After = after
	return made, nil
}

func (r Retry) config() inference.Retry {
	return inference.Retry{MaxTries: r.MaxTries, Initial: time.Duration(r.Initial), Max: time.Duration(r.Max), Budget: int(r.Budget)}
}

// Percent is a whole share of a hundred, written with its sign: 10%.
type Percent int

// UnmarshalYAML reads 1% to 100%.
func (p *Percent) UnmarshalYAML(node *yaml.Node) error {
	digits, ok := strings.CutSuffix(node.Value, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil || n < 1 || n > 100 {
		return fmt.Errorf("%q is not a share; write 1%% to 100%%", node.Value)
	}
	*p = Percent(n)
	return nil
}

// MarshalYAML writes 10%.
func (p Percent) MarshalYAML() (any, error) { return strconv.Itoa(int(p)) + "%", nil }

// checkRecovery checks what a model may do when a call fails.
func (c *Config) checkRecovery(f *findings, key, name string) {
	m := c.Models[name]
	f.when(m.Retry.Max != 0 && m.Retry.Max < m.Retry.Initial, join(key, "retry.max"), "make it at least initial", "%s is shorter than initial, %s", m.Retry.Max, m.Retry.Initial)
	const next = "write a duration such as 800ms, or p95"
	if _, err := m.Hedge.config(); err != nil {
		f.wrong(join(key, "hedge.after"), next, "%s", err)
	}
	f.when(m.Hedge.After == "" && m.Hedge.MaxShare != 0, join(key, "hedge.after"), next+"; or remove hedge", "it is empty, so that nothing is hedged")
	for i, other := range m.Fallback {
		at := fmt.Sprintf("%s.fallback[%d]", key, i)
		switch _, known := c.Models[other]; {
		case !known:
			f.wrong(at, "name a model of this configuration", "there is no model %q", other)
		case other == name:
			f.wrong(at, "name another model", "a model cannot stand in for itself")
		case slices.Contains(m.Fallback[:i], other):
			f.wrong(at, "name each model once", "%q is named twice", other)
		}
	}
}
