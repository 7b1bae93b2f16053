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
		c.tellAllowances(h)
	}
	c.w.WriteHeader(status)
}

// tellAllowances writes the headers that SDKs read limits from: of several limits of a kind the one that is nearest.
func (c *call) tellAllowances(h http.Header) {
	requests, tokens := c.s.allowances(c)
	write := setQuota
	if c.dialect == messages {
		write = setAnthropicQuota
	}
	write(h, requests, requestLimit)
	write(h, tokens, tokenLimit)
}

// allowances are those of the limits that bind the caller: that of the answers under way at this door, and those of the
// tenant, as the router told of them when it decided on the request. This is the one place that knows them.
func (s *Ingest) allowances(c *call) (requests, tokens schemas.Quota) {
	// Nobody knows when the answers under way will have ended.
	limit, free := s.places.room(c.key.ID, c.addr)
	requests = schemas.Quota{Limit: int64(limit), Remaining: int64(max(free, 0))}
	if c.told == nil {
		return requests, schemas.Quota{}
	}
	if own := c.told.Requests; own.Limit > 0 && own.Remaining <= requests.Remaining {
		requests = own
	}
	return requests, c.told.Tokens
}

// limitHeaders are the names of the headers of one limit, in the canonical form.
type limitHeaders struct {
	limit, remaining, reset                            string
	anthropicLimit, anthropicRemaining, anthropicReset string
}

var (
	requestLimit = limitHeaders{
		schemas.HeaderLimitRequests, schemas.HeaderRemainingRequests, schemas.HeaderResetRequests,
		schemas.HeaderAnthropicLimitRequests, schemas.HeaderAnthropicRemainingRequests, schemas.HeaderAnthropicResetRequests,
	}
	tokenLimit = limitHeaders{
		schemas.HeaderLimitTokens, schemas.HeaderRemainingTokens, schemas.HeaderResetTokens,
		schemas.HeaderAnthropicLimitTokens, schemas.HeaderAnthropicRemainingTokens, schemas.HeaderAnthropicResetTokens,
	}
)

// setQuota writes a limit as OpenAI does; the reset is a duration.
func setQuota(h http.Header, q schemas.Quota, names limitHeaders) {
	if q.Limit <= 0 {
		return
	}
	h[names.limit] = []string{strconv.FormatInt(q.Limit, 10)}
	h[names.remaining] = []string{strconv.FormatInt(q.Remaining, 10)}
	if q.Reset > 0 {
		h[names.reset] = []string{q.Reset.String()}
	}
}

// setAnthropicQuota writes a limit both ways: proxies and tools read the ones of OpenAI on any surface. The reset is a time.
func setAnthropicQuota(h http.Header, q schemas.Quota, names limitHeaders) {
	if setQuota(h, q, names); q.Limit <= 0 {
		return
	}
	h[names.anthropicLimit] = []string{strconv.FormatInt(q.Limit, 10)}
	h[names.anthropicRemaining] = []string{strconv.FormatInt(q.Remaining, 10)}
	if q.Reset > 0 {
		h[names.anthropicReset] = []string{time.Now().Add(q.Reset).UTC().Format(time.RFC3339)}
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
