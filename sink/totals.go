package sink

import (
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Day is what the requests of one tenant for one model that were accepted on one day, by UTC, took together.
type Day struct {
	Day      time.Time // its beginning
	Tenant   string
	Model    string
	Currency string // of Cost; requests whose cost is in another, or that have none, are in a Day of their own

	Requests   int64
	Failed     int64 // of those: that did not complete
	Saved      int64 // of those that did not fail: answered without a model of their own, from the cache or with another's answer
	Prompt     int64 // tokens that models read; what was given from the cache, or of another's answer, is in none of the two
	Completion int64 // tokens that models wrote
	Cost       schemas.Money
}

// DayOf is what one result adds.
func DayOf(r *schemas.Result) Day {
	d := Day{Day: r.Accepted.UTC().Truncate(24 * time.Hour), Tenant: r.Tenant, Model: r.Model, Requests: 1}
	if r.Status != schemas.StatusCompleted && r.Status != schemas.StatusDeleted {
		d.Failed = 1
	}
	if r.Cost != nil {
		d.Currency = r.Cost.Currency
	}
	if r.Cache.Saved() { // what it was given cost somebody else, be it an answer or an error
		d.Saved = 1 - d.Failed
		return d
	}
	if r.Usage != nil {
		d.Prompt, d.Completion = r.Usage.PromptTokens, r.Usage.CompletionTokens
	}
	if r.Cost != nil {
		d.Cost = r.Cost.Amount
	}
	return d
}

// Add adds the sums of other; whose they are stays.
func (d *Day) Add(other Day) {
	d.Requests += other.Requests
	d.Failed += other.Failed
	d.Saved += other.Saved
	d.Prompt += other.Prompt
	d.Completion += other.Completion
	d.Cost += other.Cost
}
