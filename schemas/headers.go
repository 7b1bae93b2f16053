package schemas

import "strings"

// HeaderPrefix is what every header of the pipeline's own begins with.
const HeaderPrefix = "Llm-"

// Headers of a request. The names are the same on NATS and HTTP; a NATS header is case-sensitive.
const (
	HeaderRequestID      = "Llm-Request-Id"
	HeaderDeadline       = "Llm-Deadline" // unix milliseconds
	HeaderPriority       = "Llm-Priority"
	HeaderCache          = "Llm-Cache"
	HeaderCacheTTL       = "Llm-Cache-TTL"
	HeaderCacheNamespace = "Llm-Cache-Namespace"
	HeaderCoalesce       = "Llm-Coalesce"
	HeaderOp             = "Llm-Op"
	HeaderOnDisconnect   = "Llm-On-Disconnect"
	HeaderStreamEvents   = "Llm-Stream-Events"

	HeaderAnthropicVersion = "Llm-Anthropic-Version" // of the messages dialect (docs/adr/0010)
	HeaderAnthropicBeta    = "Llm-Anthropic-Beta"    // betas of the messages dialect (docs/adr/0010)

	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// Headers that only stages write.
const (
	HeaderTenant   = "Llm-Tenant"    // on a work item
	HeaderDispatch = "Llm-Dispatch"  // the router's dispatch number
	HeaderCacheKey = "Llm-Cache-Key" // on a work item: what the cache did and where to keep the answer (docs/adr/0014)
	HeaderCost     = "Llm-Cost"      // on a work item: the router's estimate of its tokens (docs/adr/0016)
	HeaderReserve  = "Llm-Reserve"   // on a work item of a tenant with limits: what it is taken to use (docs/adr/0015)
	HeaderShared   = "Llm-Shared"    // on a work item: 1 when equal requests may be given its answer (docs/adr/0023)
	HeaderAccepted = "Llm-Accepted"  // on a work item, and on a start frame of op responses: unix milliseconds of acceptance (docs/adr/0003, 0009)

	HeaderFailures = "Llm-Failures" // on a work item that was put off: how often for a failure that may be its own (docs/adr/0024)

	// HeaderAllowance is on a work item, a start and an error frame of a tenant with limits: what is left (docs/adr/0015).
	HeaderAllowance = "Llm-Allowance"

	HeaderVersion     = "Llm-V"
	HeaderFrame       = "Llm-Frame"
	HeaderMode        = "Llm-Mode"
	HeaderWork        = "Llm-Work"
	HeaderBodyHash    = "Llm-Body-Hash"
	HeaderRedelivered = "Llm-Redelivered" // on a start frame: how often its work item had been delivered before, if at all (docs/adr/0001)
	HeaderWorker      = "Llm-Worker"
	HeaderLeader      = "Llm-Leader"         // on a start frame of mode follow: the request whose answer this one is given (docs/adr/0023)
	HeaderHeir        = "Llm-Heir"           // on an error frame: the request in whose chain the run goes on (docs/adr/0023)
	HeaderSummary     = "Llm-Summary"        // on an error frame and a unary end (docs/adr/0003)
	HeaderObject      = "Llm-Object"         // the body is in LLM_OBJECTS (docs/adr/0003)
	HeaderCharge      = "Llm-Charge"         // on a result of a tenant with limits: what it has used (docs/adr/0015)
	HeaderReason      = "Llm-Reason"         // on a DLQ record: why (docs/adr/0003)
	HeaderTokenIDs    = "Llm-Token-Ids"      // on a delta frame: what its events were decoded from (docs/adr/0019)
	HeaderPrompt      = "Llm-Prompt-Ids"     // on a delta frame: a part of what the prompt was encoded to (docs/adr/0019)
	HeaderUsage       = "Llm-Usage"          // on a delta frame: the usage so far (docs/adr/0019)
	HeaderQueuePlace  = "Llm-Queue-Position" // on an answer: the place among the requests of its tenant that wait (docs/adr/0022)
	HeaderQueueWait   = "Llm-Queue-Wait"     // on an answer: how long it is likely to wait, in seconds (docs/adr/0022)
	HeaderPart        = "Llm-Part"           // on an answer to a NATS caller: `<n>/<of>` of an event too large for a message (docs/adr/0007)
)

// Headers of NATS itself that the pipeline reads or writes.
const (
	HeaderMsgID        = "Nats-Msg-Id"
	HeaderExpectedSeq  = "Nats-Expected-Last-Subject-Sequence"
	HeaderExpectedOf   = "Nats-Expected-Last-Subject-Sequence-Subject" // of which the sequence is expected, instead of the message's own
	HeaderNatsStream   = "Nats-Stream"
	HeaderNatsSequence = "Nats-Sequence"
	HeaderNatsLastSeq  = "Nats-Last-Sequence"
	HeaderNatsTime     = "Nats-Time-Stamp"
	HeaderNatsTTL      = "Nats-TTL"

	HeaderSchedule       = "Nats-Schedule"        // when the server publishes the message again
	HeaderScheduleTarget = "Nats-Schedule-Target" // and where

	// HeaderServiceError and HeaderServiceErrorCode mark an error of a service, as the micro framework does.
	HeaderServiceError     = "Nats-Service-Error"
	HeaderServiceErrorCode = "Nats-Service-Error-Code"
)

// RequestHeaders are the headers that a caller may send; every other Llm-* and every Nats-* header is dropped at the door.
func RequestHeaders() []string {
	return []string{
		HeaderRequestID, HeaderDeadline, HeaderPriority, HeaderCache, HeaderCacheTTL, HeaderCacheNamespace,
		HeaderCoalesce, HeaderOp, HeaderOnDisconnect, HeaderStreamEvents, HeaderAnthropicVersion, HeaderAnthropicBeta,
		HeaderTraceParent, HeaderTraceState,
	}
}

func isRequestHeader(key string) bool {
	switch key {
	case HeaderRequestID, HeaderDeadline, HeaderPriority, HeaderCache, HeaderCacheTTL, HeaderCacheNamespace,
		HeaderCoalesce, HeaderOp, HeaderOnDisconnect, HeaderStreamEvents, HeaderAnthropicVersion, HeaderAnthropicBeta,
		HeaderTraceParent, HeaderTraceState:
		return true
	}
	return false
}

// IsOwnHeader reports whether a header is of the pipeline, and not of NATS or a stranger.
func IsOwnHeader(key string) bool {
	return strings.HasPrefix(key, HeaderPrefix) || key == HeaderTraceParent || key == HeaderTraceState
}

// Header is the header of a message, as net/http and nats.go both spell the type. Keys are case-sensitive.
type Header = map[string][]string

// get returns the first value of key.
func get(h Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// set puts a single value unless it is empty.
func set(h Header, key, value string) {
	if value != "" {
		h[key] = []string{value}
	}
}
