package schemas

import (
	"strconv"
	"strings"
)

// Streams, as `nats stream ls` shows them.
const (
	StreamRequests = "LLM_REQUESTS"
	StreamWork     = "LLM_WORK"
	StreamReplies  = "LLM_REPLIES"
	StreamResults  = "LLM_RESULTS"
	StreamCache    = "LLM_CACHE"
	StreamRetry    = "LLM_RETRY"
	StreamDLQ      = "LLM_DLQ"
	StreamEvents   = "LLM_EVENTS"

	BucketObjects = "LLM_OBJECTS" // object store: bodies too large for a message
	BucketKeys    = "LLM_KEYS"    // key-value: API keys
	BucketLimits  = "LLM_LIMITS"  // key-value: balances of tenants
)

// Subject spaces that streams bind and stages subscribe to.
const (
	RequestsAll  = "llm.requests.*.*"
	QueueAll     = "llm.queue.*.*.*"
	WorkAll      = "llm.work.*"
	ChunksAll    = "llm.chunks.>"
	RepliesAll   = "llm.replies.>"
	ResultsAll   = "llm.results.*.*"
	CacheAll     = "llm.cache.*.*.*"
	CacheSource  = "llm.cache.>"  // what LLM_CACHE republishes once it is stored
	CachedAll    = "llm.cached.>" // and as what
	RetryHoldAll = "llm.retry.hold.>"
	RetryDueAll  = "llm.retry.due.>"
	DLQAll       = "llm.dlq.*.*"
	EventsAll    = "llm.events.*"
	CancelAll    = "llm.cancel.*.*"
	AttachAll    = "llm.attach.*.*"
	WorkersAll   = "llm.workers.*"
	RoutersAll   = "llm.routers.*"
)

// Partitions is the number of consumers over LLM_REQUESTS. All requests of a tenant are in one partition, so that one
// router sees all of a tenant's queue. It is part of the stored subject and cannot change on a live deployment.
const Partitions = 4

// QueueTransform is the server-side mapping of a published request to its stored subject, which adds the partition.
const QueueTransform = "llm.queue.{{partition(4,1)}}.{{wildcard(1)}}.{{wildcard(2)}}"

// Durable consumers.
const (
	ConsumerSink = "sink"

	// RouterGroup is the priority group of the pinned router consumers.
	RouterGroup = "router"
)

// RouterConsumer names the durable consumer of a partition of LLM_REQUESTS.
func RouterConsumer(partition int) string { return "router_" + strconv.Itoa(partition) }

// QueueFilter is the stored subject space of a partition.
func QueueFilter(partition int) string { return "llm.queue." + strconv.Itoa(partition) + ".*.*" }

// WorkConsumer names the durable consumer of LLM_WORK for an encoded model.
func WorkConsumer(modelToken string) string { return "model_" + modelToken }

// RequestSubject is where a service publishes a request. Both arguments are encoded tokens.
func RequestSubject(tenant, modelToken string) string {
	return "llm.requests." + tenant + "." + modelToken
}

// WorkSubject is where the router dispatches to the workers of a model.
func WorkSubject(modelToken string) string { return "llm.work." + modelToken }

// DLQSubject is where a request that could not be processed is kept with the reason.
func DLQSubject(tenant, modelToken string) string { return "llm.dlq." + tenant + "." + modelToken }

// TenantResults is the subject space of a tenant's results.
func TenantResults(tenant string) string { return "llm.results." + tenant + ".*" }

// EventSubject is where an operational event of a kind is published.
func EventSubject(kind string) string { return "llm.events." + kind }

// WorkerSubject is where a worker's heartbeat goes.
func WorkerSubject(worker string) string { return "llm.workers." + worker }

// RouterSubject is where a router's heartbeat goes.
func RouterSubject(router string) string { return "llm.routers." + router }

// ParseQueueSubject splits a subject stored in LLM_REQUESTS into tenant and encoded model.
func ParseQueueSubject(subject string) (tenant, modelToken string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "llm.queue.")
	if !ok {
		return "", "", false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 3 {
		return "", "", false
	}
	return parts[1], parts[2], true
}
