package inference_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/faulty"
	"github.com/weir-llm/weir/schemas"
)

// models runs a worker with these models; each backend calls its server.
func (p *pipe) models(models map[string]inference.Model) {
	p.worker("w1", nil, func(c *inference.Config) { c.Models = models })
}

// behind is a backend of a model for each server.
func (p *pipe) behind(inFlight int, servers ...*faulty.Server) (slots []inference.Slot) {
	timeouts := inference.Timeouts{FirstToken: generous, Idle: generous, Total: 2 * time.Minute}
	for i, server := range servers {
		slots = append(slots, inference.Slot{Backend: backendOf(p.t, fmt.Sprintf("b%d", i+1), server, timeouts), MaxInFlight: inFlight})
	}
	return slots
}

// TestFlapping has a backend that is down for half of its calls, with more of them in a row than it takes to be cut off.
// Every caller gets its answer, from the other backend or from a fallback, and the calls beyond the first of each request
// stay within the budget.
func TestFlapping(t *testing.T) {
	t.Parallel()
	const row, requests = 25, 150
	for name, alone := range map[string]bool{"with another backend": false, "with a fallback": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, began := setup(t), time.Now()
			var asked atomic.Int64
			flapping := faulty.New(t, faulty.OpenAI(), func(c *faulty.Call) {
				if (asked.Add(1)-1)/row%2 == 0 {
					faulty.Fails(http.StatusServiceUnavailable)(c)
					return
				}
				faulty.Answers()(c)
			})
			steady := faulty.New(t, faulty.OpenAI(), faulty.Answers())
			config := inference.Model{Backends: p.behind(2, flapping), Retry: inference.Retry{MaxTries: 1}}
			// Cut off after fewer failures than the budget pays for, with those that are under way by then.
			config.Balance.Breaker.MinRequests = 8
			models := map[string]inference.Model{"m": config}
			if alone {
				config.Fallback = []string{"steady"}
				models["m"], models["steady"] = config, inference.Model{Backends: p.behind(8, steady)}
			} else {
				config.Backends, config.Retry.MaxTries = p.behind(8, flapping, steady), 2
				models["m"] = config
			}
			p.models(models)
			var asking sync.WaitGroup
			for i := range requests {
				id := p.send(fmt.Sprintf("r%d", i), sampled)
				asking.Go(func() {
					if got := p.read(id); got.text != whole6() || got.code() != "" {
						t.Errorf("%s got %q and %q", id, got.text, got.code())
					}
				})
				time.Sleep(10 * time.Millisecond) // the pace of the requests
			}
			asking.Wait()
			calls := len(flapping.Calls()) + len(steady.Calls())
			most := requests + requests/10 + 20 + int(time.Since(began)/(2*time.Second)) + 1
			if calls < requests || calls > most {
				t.Errorf("%d calls for %d requests, want at most %d", calls, requests, most)
			}
			if n := len(flapping.Calls()); n == 0 || n > requests {
				t.Errorf("%d calls of the flapping backend", n)
			}
		})
	}
}

// TestFailoverAccounting has an answer that took several calls: the caller pays for the one that it got, and the result
// tells of all.
func TestFailoverAccounting(t *testing.T) {
	t.Parallel()
	price := func(output schemas.Money) func() *schemas.Price {
		return func() *schemas.Price {
			return &schemas.Price{Currency: "USD", Input: output / 10 * schemas.MoneyUnit, Output: output * schemas.MoneyUnit}
		}
	}
	p := setup(t)
	down, limited := faulty.New(t, faulty.OpenAI(), faulty.Fails(500)), faulty.New(t, faulty.OpenAI(), faulty.Limits(600))
	other := faulty.New(t, faulty.Anthropic(), faulty.Answers())
	p.models(map[string]inference.Model{
		"m":      {Backends: p.behind(4, down, limited), Price: price(10), Fallback: []string{"larger"}, Retry: inference.Retry{Initial: 10 * time.Millisecond}},
		"larger": {Backends: p.behind(4, other), Price: price(1000)},
	})
	id := p.send("r1", sampled)
	if got := p.read(id); got.text != whole6() {
		t.Fatalf("got %q and %q", got.text, got.code())
	}
	r := p.ended(id)
	// 11 tokens at 100 and 7 at 1000 for a million.
	const cost = "0.0081 USD"
	if r.AnsweredBy != "larger" || r.Usage.PromptTokens != faulty.PromptTokens || r.Usage.CompletionTokens != faulty.CompletionTokens || r.Cost.String() != cost {
		t.Errorf("answered by %q, usage %+v, cost %s", r.AnsweredBy, r.Usage, r.Cost)
	}
	want := []struct {
		backend, model string
		mode           schemas.TryMode
		outcome        schemas.Code
		status         int
		cause, cost    string
	}{
		{"b1", "", "", schemas.CodeUpstreamError, 500, "model server: status 500, code api_error", ""},
		{"b2", "", schemas.TryFailover, schemas.CodeRateLimit, 429, "model server: status 429, code rate_limit_exceeded", ""},
		{"b1", "larger", schemas.TryFallback, "", 0, "", cost},
	}
	if len(r.Tries) != len(want) {
		t.Fatalf("tries %+v", r.Tries)
	}
	for i, w := range want {
		got := r.Tries[i]
		if got.Backend != w.backend || got.Model != w.model || got.Mode != w.mode || got.Outcome != w.outcome || got.HTTPStatus != w.status || got.Cause != w.cause || got.Cost.String() != w.cost {
			t.Errorf("try %d is %+v, want %+v", i+1, got, w)
		}
	}
}

// TestHedgedRequest has a backend that is slow to begin, and one that is not.
func TestHedgedRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	slow, quick := faulty.New(t, faulty.OpenAI(), faulty.Hangs()), faulty.New(t, faulty.OpenAI(), faulty.Answers())
	p.models(map[string]inference.Model{"m": {Backends: p.behind(4, slow, quick), Hedge: inference.Hedge{After: 100 * time.Millisecond}}})
	id := p.send("r1", sampled)
	if got := p.read(id); got.text != whole6() || got.code() != "" {
		t.Fatalf("got %q and %q", got.text, got.code())
	}
	r := p.ended(id)
	if len(r.Tries) != 2 || r.Tries[0].Outcome != schemas.CodeCancelled || r.Tries[0].Usage != nil || r.Tries[1].Mode != schemas.TryHedge || r.Usage.TotalTokens != faulty.PromptTokens+faulty.CompletionTokens {
		t.Errorf("usage %+v of tries %+v", r.Usage, r.Tries)
	}
	p.until("the slow server notices", func() bool { return slow.Calls()[0].Left })
}

// TestFallbackOfAnotherDialect has requests of each dialect answered by a fallback that speaks the other: the events
// are those of the request, and name the model that answers.
func TestFallbackOfAnotherDialect(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]faulty.Dialect{"to openai": faulty.OpenAI(), "to anthropic": faulty.Anthropic()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			from := faulty.Anthropic()
			if to.Name == from.Name {
				from = faulty.OpenAI()
			}
			down, other := faulty.New(t, from, faulty.Fails(503)), faulty.New(t, to, faulty.Answers())
			p.models(map[string]inference.Model{
				"m": {Backends: p.behind(4, down), Fallback: []string{"other"}, Retry: inference.Retry{MaxTries: 1}}, "other": {Backends: p.behind(4, other)},
			})
			w := work("r1", 1, `{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`)
			w.Op = schemas.OpMessages
			p.dispatch(w)
			p.until("the end", func() bool { return p.chain(w.Identity).Terminal() != nil })
			r := p.ended(w.Identity)
			if r.Status != schemas.StatusCompleted || r.Usage == nil || r.Usage.CompletionTokens != faulty.CompletionTokens {
				t.Errorf("%s %s, usage %+v", r.Status, r.Error, r.Usage)
			}
			text, model := "", ""
			for _, event := range p.chain(w.Identity).Events() {
				text += gjson.GetBytes(event, "delta.text").Str
				model += gjson.GetBytes(event, "message.model").Str
			}
			if text != whole6() || model != "other" {
				t.Errorf("the caller reads %q of model %q", text, model)
			}
			if asked := other.Calls()[0].Body; gjson.Get(asked, "model").Str != "other" {
				t.Errorf("the fallback was asked %s", asked)
			}
		})
	}
}
