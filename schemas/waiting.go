package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// PositionsAll is the subject space of questions about requests that wait.
const PositionsAll = "llm.position.*.*"

// Position is the subject on which routers are asked how long the request has yet to wait. The one that has it in its
// queue answers with [Waiting]; nobody does for one that does not wait (docs/adr/0022).
func (id Identity) Position() string { return "llm.position." + id.Tenant + "." + id.Request }

// Waiting is where a request stands in the queue of its model.
type Waiting struct {
	V      int   `json:"v"`
	Place  int   `json:"place"`             // among those of its tenant and priority; 1 goes next of them
	Queued int   `json:"queued"`            // requests that wait for the model
	WaitMS int64 `json:"wait_ms,omitempty"` // predicted; 0 while the router does not know the pace of the model
}

// Encode writes the answer as JSON.
func (w *Waiting) Encode() []byte { return encodeJSON(w) }

// DecodeWaiting reads what [Waiting.Encode] wrote, of any version.
func DecodeWaiting(data []byte) (*Waiting, error) {
	w := &Waiting{}
	if err := json.Unmarshal(data, w); err != nil {
		return nil, fmt.Errorf("decode a place in the queue: %w", err)
	}
	return w, nil
}

// EventQueue is the kind of a [QueueEvent].
const EventQueue = "queue"

// QueueEventRequests is how many requests a [QueueEvent] names at most.
const QueueEventRequests = 32

// QueueEvent tells that requests wait for a model: when the first of them begins to, every ten seconds while they do, and
// when none does any more.
type QueueEvent struct {
	V        int              `json:"v"`
	Model    string           `json:"model"` // encoded
	Queued   int              `json:"queued"`
	WaitMS   int64            `json:"wait_ms,omitempty"`  // predicted for one more request of normal priority and of a tenant that has none
	Requests []WaitingRequest `json:"requests,omitempty"` // those that go next of their tenants
	By       string           `json:"by"`                 // the router
	Time     time.Time        `json:"time"`
}

// WaitingRequest is a request that waits.
type WaitingRequest struct {
	Tenant   string   `json:"tenant"`
	Request  string   `json:"request_id"`
	Priority Priority `json:"priority"`
	WaitedMS int64    `json:"waited_ms"`
	WaitMS   int64    `json:"wait_ms,omitempty"` // predicted, from now
}

// Encode writes the event as JSON.
func (e *QueueEvent) Encode() []byte { return encodeJSON(e) }

// DecodeQueueEvent reads what [QueueEvent.Encode] wrote, of any version.
func DecodeQueueEvent(data []byte) (*QueueEvent, error) {
	e := &QueueEvent{}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode an event about a queue: %w", err)
	}
	return e, nil
}
