package sink

import (
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// WithoutPayload is the metadata of r: what it was and how it went, but nothing that was said. Members that a later
// version added are left out, because nobody here knows what they hold.
func WithoutPayload(r *schemas.Result) *schemas.Result {
	m := *r
	m.Request, m.RequestRaw, m.Response, m.Events, m.Extra = nil, nil, nil, nil, nil
	return &m
}

// HasPayload reports whether r holds anything that was said.
func HasPayload(r *schemas.Result) bool {
	return len(r.Request)+len(r.RequestRaw)+len(r.Response)+len(r.Extra) > 0 || r.Events != nil
}

// Tombstone is what stays of r after an erasure: that it was, and what it cost. Even the hash of the request goes, for
// that of a short text tells the text, and so do the words of errors, which may quote it.
func Tombstone(r *schemas.Result) *schemas.Result {
	return &schemas.Result{
		V: r.V, Tenant: r.Tenant, RequestID: r.RequestID, Model: r.Model, Op: r.Op,
		Accepted: r.Accepted, Started: r.Started, Finished: r.Finished,
		Status: schemas.StatusDeleted, Usage: r.Usage, Cost: r.Cost, Cache: r.Cache, Attempts: r.Attempts,
	}
}

// ErasedThrough is the time up to which a tombstone erases: records of its id that were accepted later are another
// request's. A tombstone that says no time erases what was accepted before now.
func ErasedThrough(tombstone *schemas.Result, now time.Time) time.Time {
	latest := tombstone.Accepted
	if tombstone.Finished.After(latest) {
		latest = tombstone.Finished
	}
	if latest.IsZero() {
		return now
	}
	return latest
}

// ErrorCode is the code of the error that r ended with, or empty.
func ErrorCode(r *schemas.Result) schemas.Code {
	if len(r.Error) == 0 {
		return ""
	}
	e, err := schemas.DecodeError(r.Error)
	if err != nil {
		return schemas.CodeInternal
	}
	return e.Code
}

// kept is what of r goes to the store: all of it, or the metadata if the request says "store": false.
func kept(r *schemas.Result) *schemas.Result {
	if gjson.GetBytes(r.Request, "store").Type == gjson.False {
		return WithoutPayload(r)
	}
	return r
}
