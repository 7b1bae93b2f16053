package main

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-llm/weir/schemas"
)

// Price is what a million tokens of a model cost, in the configured currency.
type Price struct {
	Input       Amount  `yaml:"input" min:"0" max:"1000000" doc:"A million tokens of prompts."`
	Output      Amount  `yaml:"output" min:"0" max:"1000000" doc:"A million tokens of answers."`
	CachedInput *Amount `yaml:"cached_input,omitempty" min:"0" max:"1000000" doc:"A million tokens of prompts that the backend had in its cache; default as input."`
	CacheWrite  *Amount `yaml:"cache_write,omitempty" min:"0" max:"1000000" doc:"A million tokens of prompts that the backend put into its cache; default as input."`
}

// Amount is an amount of money, written as a decimal.
type Amount schemas.Money

// UnmarshalYAML reads 0.15 or 12.
func (a *Amount) UnmarshalYAML(node *yaml.Node) error {
	m, err := schemas.ParseMoney(node.Value)
	if err != nil {
		return err
	}
	*a = Amount(m)
	return nil
}

// MarshalYAML writes it as it is read.
func (a Amount) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: a.String()}, nil
}

func (a Amount) String() string { return schemas.Money(a).String() }

// checkCurrency refuses what no header and no report could show.
func (c *Config) checkCurrency(f *findings) {
	unfit := c.Currency == "" || len(c.Currency) > 16 || strings.ContainsFunc(c.Currency, func(r rune) bool { return r <= ' ' || r > '~' })
	f.when(unfit, "currency", "write its code, such as USD or EUR", "%.40q cannot be a currency", c.Currency)
}

// price is that of a model, or nil.
func (c *Config) price(model string) *schemas.Price {
	p := c.Models[model].Price
	if p == nil {
		return nil
	}
	price := &schemas.Price{Currency: c.Currency, Input: schemas.Money(p.Input), Output: schemas.Money(p.Output)}
	price.CachedInput, price.CacheWrite = price.Input, price.Input
	if p.CachedInput != nil {
		price.CachedInput = schemas.Money(*p.CachedInput)
	}
	if p.CacheWrite != nil {
		price.CacheWrite = schemas.Money(*p.CacheWrite)
	}
	return price
}
