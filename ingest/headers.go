package ingest

import (
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// sendHeader sends the status, with the headers that every answer has. It is the one place where a status leaves.
func (c *call) sendHeader(status int) {
	c.status = status
	h := c.w.Header()
	h[schemas.HeaderProcessingMS] = []string{strconv.FormatInt(time.Since(c.began).Milliseconds(), 10)}
	if c.id.Tenant != "" { // how busy the door is does not concern strangers
		requests, tokens := c.s.allowances(c)
		requests.set(h, schemas.HeaderLimitRequests, schemas.HeaderRemainingRequests, schemas.HeaderResetRequests)
		tokens.set(h, schemas.HeaderLimitTokens, schemas.HeaderRemainingTokens, schemas.HeaderResetTokens)
	}
	c.w.WriteHeader(status)
}

// allowance is what a caller may still do under a limit. The zero value is no limit.
type allowance struct {
	limit, remaining int64
	reset            time.Duration // until all of the limit is free again; 0 = nobody knows
}

// allowances are those of the limits that bind the caller: of several limits of a kind the one that is nearest. This is
// the one place that knows them.
func (s *Ingest) allowances(c *call) (requests, tokens allowance) {
	// Nobody knows when the answers under way will have ended.
	limit, free := s.places.room(c.key.ID, c.addr)
	return allowance{limit: int64(limit), remaining: int64(free)}, allowance{}
}

// set writes the headers that SDKs read a limit from. The names are in the canonical form.
func (a allowance) set(h http.Header, limit, remaining, reset string) {
	if a.limit <= 0 {
		return
	}
	h[limit] = []string{strconv.FormatInt(a.limit, 10)}
	h[remaining] = []string{strconv.FormatInt(max(a.remaining, 0), 10)}
	if a.reset > 0 {
		h[reset] = []string{a.reset.String()}
	}
}

// tellKey sends back the idempotency key, and says of a request that may have been sent before that it was not, until there
// turns out to be an earlier one.
func (c *call) tellKey(a asked) {
	if len(a.keys) > 0 && len(a.keys[0]) <= maxKeyBytes {
		c.w.Header()[headerIdempotencyKey] = a.keys[:1:1]
	}
	if len(a.keys)+len(a.ids) > 0 {
		c.attached(false)
	}
}

func (c *call) attached(earlier bool) {
	c.w.Header().Set(schemas.HeaderIdempotentReplayed, strconv.FormatBool(earlier))
}

// countRetry notes a request that its SDK has sent before: no SDK says so in an idempotency key. What is said is counted
// and logged, and decides nothing.
func (c *call) countRetry() {
	said := c.r.Header[schemas.HeaderSDKRetry]
	if len(said) == 0 || said[0] == "0" {
		return
	}
	if n, err := strconv.Atoi(said[0]); err == nil && n > 0 {
		c.s.meters.retried.Inc()
		c.log(slog.LevelDebug, "the SDK tries again", slog.Int("retry", n))
	}
}
