package schemas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EventRetry is the kind of a [RetryEvent].
const EventRetry = "retry"

// RetryEvent is an event: a batch request that no model could answer is tried again later.
type RetryEvent struct {
	V        int       `json:"v"`
	Tenant   string    `json:"tenant"`
	Request  string    `json:"request_id"`
	Model    string    `json:"model"`    // encoded
	Dispatch int       `json:"dispatch"` // the number that it is dispatched again with
	At       time.Time `json:"at"`       // when
	Code     Code      `json:"code"`     // why it could not be answered
	By       string    `json:"by"`       // the worker
	Time     time.Time `json:"time"`
}

// Encode writes the event as JSON.
func (e *RetryEvent) Encode() []byte { return encodeJSON(e) }

// DecodeRetryEvent reads what [RetryEvent.Encode] wrote, of any version.
func DecodeRetryEvent(data []byte) (*RetryEvent, error) {
	e := &RetryEvent{}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode a retry: %w", err)
	}
	return e, nil
}

// RetryHoldSubject is where a request waits for its next dispatch. There is one such message for a request at a time. The
// model may be * for any.
func RetryHoldSubject(id Identity, modelToken string) string {
	return "llm.retry.hold." + retryTokens(id, modelToken)
}

// RetryDueSubject is where the server puts it when its time has come.
func RetryDueSubject(id Identity, modelToken string) string {
	return "llm.retry.due." + retryTokens(id, modelToken)
}

func retryTokens(id Identity, modelToken string) string {
	return strconv.Itoa(PartitionOf(id.Tenant)) + "." + id.Tenant + "." + id.Request + "." + modelToken
}

// RetryConsumer names the durable consumer of what is due of the tenants of a partition.
func RetryConsumer(partition int) string { return "retry_" + strconv.Itoa(partition) }

// RetryFilter is the subject space of what is due of a partition.
func RetryFilter(partition int) string { return "llm.retry.due." + strconv.Itoa(partition) + ".>" }

// RetryModel is the encoded model in the subject of a request that is held or due.
func RetryModel(subject string) (modelToken string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 7 || parts[1] != "retry" {
		return "", false
	}
	return parts[6], true
}

// scheduleAt is the value of Nats-Schedule for a time. The server looks at whole seconds.
func scheduleAt(t time.Time) string {
	return "@at " + t.Add(time.Second-time.Nanosecond).Truncate(time.Second).UTC().Format(time.RFC3339)
}

// EncodeHeld gives the headers of a work item that waits until a time, to be due after it.
func (w *Work) EncodeHeld(until time.Time) Header {
	h := w.Encode()
	set(h, HeaderSchedule, scheduleAt(until))
	set(h, HeaderScheduleTarget, RetryDueSubject(w.Identity, w.ModelToken))
	return h
}
