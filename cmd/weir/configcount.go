package main

import "github.com/weir-llm/weir/internal/tokens"

// Values of count_tokens.
const (
	countEstimate = "estimate"
	countExact    = "exact"
)

// counting is what counts the prompts of each model. It is nil, and the vocabulary is not read, when none is counted exactly.
func (c *Config) counting() (func(model string) func(body []byte) int64, error) {
	exact := map[string]func([]byte) int64{}
	for name, m := range c.Models {
		if m.CountTokens == countExact {
			exact[name] = nil
		}
	}
	if len(exact) == 0 {
		return nil, nil
	}
	counter, err := tokens.New()
	if err != nil {
		return nil, err
	}
	for name := range exact {
		exact[name] = counter.Prompt
	}
	return func(model string) func([]byte) int64 { return exact[model] }, nil
}
