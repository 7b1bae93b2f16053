package router

import (
	"fmt"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// Limits of a tenant, and what happens at them.
type Limits struct {
	ledger.Limits

	Models []string // that the tenant may use, by name; * is all of them, and so is none at all
	// Reject answers at once at a limit, or within settleGrace where what runs is in the way. Otherwise the request waits, for
	// MaxQueueWait at most.
	Reject       bool
	MaxQueueWait time.Duration // default DefaultMaxQueueWait
}

// DefaultMaxQueueWait is how long a request waits at a limit of its tenant.
const DefaultMaxQueueWait = 30 * time.Second

// MayUse reports whether the tenant may use a model.
func (l *Limits) MayUse(model string) bool {
	return l == nil || len(l.Models) == 0 || slices.Contains(l.Models, model) || slices.Contains(l.Models, "*")
}

// settleGrace is how long a request of a tenant whose policy is to reject waits for what runs. A caller has its answer some
// milliseconds before the result is counted, and who sends one request after the other is not to be refused for that.
const settleGrace = 250 * time.Millisecond

func (l *Limits) maxWait() time.Duration {
	if l == nil {
		return DefaultMaxQueueWait
	}
	if l.Reject {
		return settleGrace
	}
	if l.MaxQueueWait > 0 {
		return l.MaxQueueWait
	}
	return DefaultMaxQueueWait
}

// unknownWait is what a caller is told to wait when that depends on what runs.
const unknownWait = time.Second

// refusal is the error of a request at a limit, with how long to wait.
func (l *Limits) refusal(v ledger.Verdict) *schemas.Error {
	wait := v.Wait
	if wait == 0 {
		wait = unknownWait
	}
	switch v.Over {
	case ledger.OverBudget:
		return schemas.Errorf(schemas.CodeQuota, "The budget of %s is used up. %s", l.budget(), l.renewal(wait)).WithRetryAfter(wait)
	case ledger.OverReserved:
		return limited(wait, "What is left of the budget of %s is reserved by requests that run.", l.budget())
	case ledger.OverInFlight:
		return limited(wait, "Rate limit reached: %d requests of the tenant are under way, which is the most.", l.MaxInFlight)
	case ledger.OverTokens:
		return limited(wait, "Rate limit reached for tokens per minute: the limit is %d.", l.TokensPerMinute).WithTokens()
	case ledger.OverRequests:
		return limited(wait, "Rate limit reached for requests per minute: the limit is %d.", l.RequestsPerMinute)
	}
	return limited(wait, "Rate limit reached: requests of the tenant that came before did not leave within %s.", l.maxWait())
}

func limited(wait time.Duration, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.CodeRateLimit, "%s Please try again in %s.", fmt.Sprintf(format, args...), wait).WithRetryAfter(wait)
}

func (l *Limits) budget() string {
	b := &l.Budget
	switch {
	case b.Tokens > 0 && b.Money > 0:
		return fmt.Sprintf("%d tokens and %s", b.Tokens, b.Money)
	case b.Money > 0:
		return b.Money.String()
	}
	return fmt.Sprintf("%d tokens", b.Tokens)
}

func (l *Limits) renewal(wait time.Duration) string {
	if l.Budget.Window == (ledger.Window{}) {
		return "Ask the operator for more."
	}
	return fmt.Sprintf("It begins anew in %s.", wait)
}

// modelRefused says that the tenant may not use the model.
func modelRefused(model string) *schemas.Error {
	if name, err := schemas.DecodeModel(model); err == nil {
		model = name
	}
	return schemas.Errorf(schemas.CodeModelNotAllowed, "the tenant may not use the model %.128q: name one that GET /v1/models lists, or ask the operator", model).WithParam("model")
}
