package schemas

import (
	"fmt"
	"strconv"
	"time"
)

// Work is a message in LLM_WORK: a request that a worker may take now.
type Work struct {
	Request
	Dispatch int        // the router's dispatch number, from 1
	Cost     int64      // tokens that the router takes it for, of prompt and answer; 0 when it did not say
	Cache    *CacheNote // nil when nobody asked for the cache
	Accepted time.Time  // when LLM_REQUESTS stored the request
	Shared   bool       // equal requests may be given its answer, and may inherit its run

	Reserve   *Reserve // of a tenant with limits
	Allowance string   // of a tenant with limits: the header Llm-Allowance

	Failures int // how often the request was put off for a failure that may be its own

	Sent time.Time // when LLM_WORK stored the item; known to a reader only
}

// MsgID is the message id of this dispatch.
func (w *Work) MsgID() string { return w.WorkID(w.Dispatch) }

// Encode gives the message's headers; the payload is the body.
func (w *Work) Encode() Header {
	h := w.Request.Encode()
	set(h, HeaderTenant, w.Tenant)
	set(h, HeaderDispatch, strconv.Itoa(w.Dispatch))
	set(h, HeaderAccepted, encodeTime(w.Accepted))
	set(h, HeaderCacheKey, w.Cache.String())
	set(h, HeaderReserve, w.Reserve.String())
	set(h, HeaderAllowance, w.Allowance)
	if w.Failures > 0 {
		set(h, HeaderFailures, strconv.Itoa(w.Failures))
	}
	if w.Shared {
		set(h, HeaderShared, "1")
	}
	if w.Cost > 0 {
		set(h, HeaderCost, strconv.FormatInt(w.Cost, 10))
	}
	return h
}

// DecodeWork reads a message of LLM_WORK for an encoded model.
func DecodeWork(modelToken string, h Header, body []byte) (*Work, error) {
	w := &Work{Request: Request{
		Identity:   Identity{Tenant: get(h, HeaderTenant), Request: get(h, HeaderRequestID)},
		ModelToken: modelToken, Op: Op(get(h, HeaderOp)), Priority: Priority(get(h, HeaderPriority)),
		Header: otherHeaders(h), Body: body,
	}}
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("decode work item: %w", err)
	}
	if err := w.decodeHeaders(h); err != nil {
		return w, fmt.Errorf("decode work item: %w", err)
	}
	dispatch, err := strconv.Atoi(get(h, HeaderDispatch))
	if err != nil || dispatch < 1 {
		return w, fmt.Errorf("decode work item: %w", badHeader(HeaderDispatch, get(h, HeaderDispatch), "a number from 1"))
	}
	accepted, err := ParseDeadline(get(h, HeaderAccepted))
	if err != nil {
		return w, fmt.Errorf("decode work item: %w", err)
	}
	w.Shared = get(h, HeaderShared) == "1"
	w.Dispatch, w.Accepted, w.Allowance, w.Cache = dispatch, accepted, get(h, HeaderAllowance), ParseCacheNote(get(h, HeaderCacheKey))
	if reserve, err := ParseReserve(get(h, HeaderReserve)); err == nil {
		w.Reserve = reserve // without one, the result counts for all that the router has reserved
	}
	w.Failures = int(positive(get(h, HeaderFailures), 31)) // one that cannot be read costs a few more retries
	w.Cost = positive(get(h, HeaderCost), 63)              // an estimate, for statistics: one that cannot be read is none
	return w, nil
}

// positive reads a number of at most so many bits from a header; what is none is 0.
func positive(s string, bits int) int64 {
	if s == "" { // as most are, and an error costs more than the rest
		return 0
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0
	}
	return int64(n)
}
