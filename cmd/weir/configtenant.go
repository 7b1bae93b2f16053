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
	Weight            int      `yaml:"weight,omitempty" min:"1" max:"1000" doc:"Share of a model in relation to other tenants while several wait for it, 1 to 1000; default 1."`
	RequestsPerMinute *int64   `yaml:"requests_per_minute,omitempty" min:"1" max:"1000000000000" doc:"Requests a minute; after a pause as many at once. Default: no limit."`
	TokensPerMinute   *int64   `yaml:"tokens_per_minute,omitempty" min:"1" max:"1000000000000" doc:"Tokens a minute, of prompts and answers; after a pause as many at once. Default: no limit."`
	MaxInFlight       *int     `yaml:"max_in_flight,omitempty" min:"1" max:"1000000" doc:"Requests that run at once. Default: no limit."`
	Budget            *Budget  `yaml:"budget,omitempty" doc:"What may be used in a span of time. Default: no limit."`
	Models            []string `yaml:"models,omitempty" doc:"Names of the models that it may use, or * for all; default all."`
	OnLimit           string   `yaml:"on_limit,omitempty" enum:"queue,reject" doc:"queue: at a limit a request waits, the default. reject: it is refused at once with 429."`
	MaxQueueWait      Duration `yaml:"max_queue_wait,omitempty" min:"100ms" max:"1h" doc:"How long a request waits at a limit before it is refused; default 30s."`

	Cache    TenantCache `yaml:"cache,omitempty" doc:"Whether answers are kept and given again."`
	Coalesce string      `yaml:"coalesce,omitempty" enum:"cached,on,off" doc:"Which requests share one run while an equal one is under way: cached, those that want the cache, the default; on, also those that do not say; off, none."`
}

// Budget is what a tenant may use in a span of time. Both limits hold when both are given.
type Budget struct {
	Tokens int64  `yaml:"tokens,omitempty" min:"1" max:"1000000000000000" doc:"Tokens, of prompts and answers."`
	Money  Amount `yaml:"money,omitempty" min:"0.000000001" max:"1000000000" doc:"Money, in currency, by the prices of the models."`
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

func parseWindow(text string) (ledger.Window, error) {
	if text == "month" {
		return ledger.Window{Month: true}, nil
	}
	length, err := time.ParseDuration(text)
	if err != nil || length < minWindow || length > maxWindow {
		return ledger.Window{}, fmt.Errorf("%q is no span of time", text)
	}
	return ledger.Window{Length: length}, nil
}

func (c *Config) checkTenants(f *findings) {
	for _, name := range slices.Sorted(maps.Keys(c.Tenants)) {
		key, t := join("tenants", name), c.Tenants[name]
		if err := schemas.ValidateTenant(name); err != nil {
			f.wrong(key, "use 1 to 64 of A-Z a-z 0-9 _ -", "%s", schemas.AsError(err).Message)
		}
		f.when(t.OnLimit == "reject" && t.MaxQueueWait != 0, join(key, "max_queue_wait"), "remove it, or set on_limit: queue", "nothing waits with on_limit: reject")
		checkModelList(f, join(key, "models"), t.Models)
		c.checkKnown(f, join(key, "models"), t.Models)
		c.checkBudget(f, join(key, "budget"), &t)
	}
}

// anyModel stands for all models in a list of them.
const anyModel = "*"

// checkKnown refuses models that nobody could use: they are written otherwise, or are gone.
func (c *Config) checkKnown(f *findings, key string, models []string) {
	for i, model := range models {
		if _, known := c.Models[model]; !known && model != anyModel {
			f.wrong(fmt.Sprintf("%s[%d]", key, i), "name a model of this configuration, or * for all", "there is no model %q", model)
		}
	}
}

func (c *Config) checkBudget(f *findings, key string, t *Tenant) {
	b := t.Budget
	if b == nil {
		return
	}
	if _, err := parseWindow(b.Window); err != nil {
		f.wrong(join(key, "window"), "write month, or a time from 1m to 8784h such as 24h", "%s", err)
	}
	f.when(b.Tokens == 0 && b.Money == 0, key, "give tokens, money or both, each above 0, or leave the budget out for no limit", "the budget is empty")
	for _, model := range c.modelNames() {
		if b.Money > 0 && c.Models[model].Price == nil && (&router.Limits{Models: t.Models}).MayUse(model) {
			f.wrong(join(key, "money"), "add models."+model+".price; what costs nothing has {input: 0, output: 0}", "the model %s has no price, and would be free", model)
		}
	}
}
