package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// Tenant is what a tenant may have. Without a limit there is none.
type Tenant struct {
	Weight            int      `yaml:"weight,omitempty" doc:"Share of a model in relation to other tenants while several wait for it, 1 to 1000; default 1."`
	RequestsPerMinute *int64   `yaml:"requests_per_minute,omitempty" doc:"Requests a minute; after a pause as many at once. Default: no limit."`
	TokensPerMinute   *int64   `yaml:"tokens_per_minute,omitempty" doc:"Tokens a minute, of prompts and answers; after a pause as many at once. Default: no limit."`
	MaxInFlight       *int     `yaml:"max_in_flight,omitempty" doc:"Requests that run at once. Default: no limit."`
	Budget            *Budget  `yaml:"budget,omitempty" doc:"What may be used in a span of time. Default: no limit."`
	Models            []string `yaml:"models,omitempty" doc:"Names of the models that it may use, or * for all; default all."`
	OnLimit           string   `yaml:"on_limit,omitempty" enum:"queue,reject" doc:"queue: at a limit a request waits, the default. reject: it is refused at once with 429."`
	MaxQueueWait      Duration `yaml:"max_queue_wait,omitempty" doc:"How long a request waits at a limit before it is refused; default 30s."`

	Cache    TenantCache `yaml:"cache,omitempty" doc:"Whether answers are kept and given again."`
	Coalesce string      `yaml:"coalesce,omitempty" enum:"cached,on,off" doc:"Which requests share one run while an equal one is under way: cached, those that want the cache, the default; on, also those that do not say; off, none."`
}

// Budget is what a tenant may use in a span of time. Both limits hold when both are given.
type Budget struct {
	Tokens int64  `yaml:"tokens,omitempty" doc:"Tokens, of prompts and answers."`
	Money  Amount `yaml:"money,omitempty" doc:"Money, in currency, by the prices of the models."`
	Window string `yaml:"window" doc:"The span: month, the calendar month by UTC, or a time from 1m such as 24h, the day by UTC."`
}

// tenantDefault names the entry for tenants that have none of their own.
const tenantDefault = "default"

func (c *Config) tenant(name string) Tenant {
	if t, ok := c.Tenants[name]; ok {
		return t
	}
	return c.Tenants[tenantDefault]
}

// weight is a tenant's share in relation to others.
func (c *Config) weight(tenant string) int { return max(c.tenant(tenant).Weight, 1) }

// mayUse reports whether a tenant may use a model.
func (c *Config) mayUse(tenant, model string) bool {
	t := c.tenant(tenant)
	return (&router.Limits{Models: t.Models}).MayUse(model)
}

// allLimits are those of every tenant that is named, nil for one that has none.
func (c *Config) allLimits() map[string]*router.Limits {
	all := make(map[string]*router.Limits, len(c.Tenants))
	for name, t := range c.Tenants {
		all[name] = nil
		if l := t.limits(); l.Any() || len(l.Models) > 0 {
			all[name] = l
		}
	}
	return all
}

func (t *Tenant) limits() *router.Limits {
	l := &router.Limits{Models: t.Models, Reject: t.OnLimit == "reject", MaxQueueWait: time.Duration(t.MaxQueueWait)}
	l.RequestsPerMinute, l.TokensPerMinute = number(t.RequestsPerMinute), number(t.TokensPerMinute)
	if t.MaxInFlight != nil {
		l.MaxInFlight = *t.MaxInFlight
	}
	if b := t.Budget; b != nil {
		window, _ := parseWindow(b.Window) // it was checked
		l.Budget = ledger.Budget{Tokens: b.Tokens, Money: schemas.Money(b.Money), Window: window}
	}
	return l
}

func number(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

const minWindow = time.Minute

func parseWindow(text string) (ledger.Window, error) {
	if text == "month" {
		return ledger.Window{Month: true}, nil
	}
	length, err := time.ParseDuration(text)
	if err != nil || length < minWindow {
		return ledger.Window{}, fmt.Errorf("%q is no span of time", text)
	}
	return ledger.Window{Length: length}, nil
}

func (c *Config) checkTenants() *configError {
	for _, name := range slices.Sorted(maps.Keys(c.Tenants)) {
		key := join("tenants", name)
		if err := schemas.ValidateTenant(name); err != nil {
			return problem(key, "use 1 to 64 of A-Z a-z 0-9 _ -", "%s", schemas.AsError(err).Message)
		}
		t := c.Tenants[name]
		for _, err := range []*configError{t.checkNumbers(key), t.checkPolicy(key), t.checkModels(key), c.checkBudget(key, &t)} {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// maxLimit is beyond what any model serves, and far from where numbers lose a unit.
const maxLimit = 1_000_000_000_000

func (t *Tenant) checkNumbers(key string) *configError {
	if t.Weight < 0 || t.Weight > router.MaxWeight {
		return problem(join(key, "weight"), fmt.Sprintf("use 1 to %d", router.MaxWeight), "%d is out of range", t.Weight)
	}
	inFlight := t.MaxInFlight
	for _, limit := range []struct {
		name  string
		given bool
		value int64
	}{
		{"requests_per_minute", t.RequestsPerMinute != nil, number(t.RequestsPerMinute)},
		{"tokens_per_minute", t.TokensPerMinute != nil, number(t.TokensPerMinute)},
		{"max_in_flight", inFlight != nil, func() int64 {
			if inFlight == nil {
				return 0
			}
			return int64(*inFlight)
		}()},
	} {
		if limit.given && (limit.value < 1 || limit.value > maxLimit) {
			return problem(join(key, limit.name), fmt.Sprintf("use 1 to %d, or leave it out for no limit; who may do nothing needs no key", int64(maxLimit)), "%d is out of range", limit.value)
		}
	}
	return nil
}

func (t *Tenant) checkPolicy(key string) *configError {
	switch {
	case t.OnLimit != "" && t.OnLimit != "queue" && t.OnLimit != "reject":
		return problem(join(key, "on_limit"), "use queue or reject", "%q is not known", t.OnLimit)
	case t.OnLimit == "reject" && t.MaxQueueWait != 0:
		return problem(join(key, "max_queue_wait"), "remove it, or set on_limit: queue", "nothing waits with on_limit: reject")
	case t.MaxQueueWait != 0 && t.MaxQueueWait < Duration(100*time.Millisecond):
		return problem(join(key, "max_queue_wait"), "use at least 100ms, or on_limit: reject", "%s is too short to wait", t.MaxQueueWait)
	}
	return nil
}

func (t *Tenant) checkModels(key string) *configError {
	if t.Models != nil && len(t.Models) == 0 {
		return problem(join(key, "models"), "list names of models, or leave it out for all", "the list is empty")
	}
	for _, model := range t.Models {
		if _, err := schemas.EncodeModel(model); err != nil {
			return problem(join(key, "models"), "list names of models, or leave it out for all", "%s", schemas.AsError(err).Message)
		}
	}
	return nil
}

func (c *Config) checkBudget(key string, t *Tenant) *configError {
	b := t.Budget
	if b == nil {
		return nil
	}
	key = join(key, "budget")
	if _, err := parseWindow(b.Window); err != nil {
		return problem(join(key, "window"), "write month, or a time from 1m such as 24h", "%s", err)
	}
	if b.Tokens < 0 || b.Tokens > 1000*maxLimit {
		return problem(join(key, "tokens"), fmt.Sprintf("use 1 to %d", int64(1000*maxLimit)), "%d is out of range", b.Tokens)
	}
	if b.Tokens == 0 && b.Money == 0 {
		return problem(key, "give tokens, money or both, each above 0, or leave the budget out for no limit", "the budget is empty")
	}
	for _, model := range c.modelNames() {
		if b.Money > 0 && c.Models[model].Price == nil && (&router.Limits{Models: t.Models}).MayUse(model) {
			return problem(join(key, "money"), "add models."+model+".price; what costs nothing has {input: 0, output: 0}",
				"the model %s has no price, and would be free", model)
		}
	}
	return nil
}
