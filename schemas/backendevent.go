package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventBackend is the kind of [BackendEvent] in [EventSubject].
const EventBackend = "backend"

// BackendEvent says in LLM_EVENTS that a worker stopped calling a backend of a model because too many calls failed, or
// calls it again.
type BackendEvent struct {
	V       int       `json:"v"`
	Worker  string    `json:"worker"`
	Model   string    `json:"model"`
	Backend string    `json:"backend"`
	State   string    `json:"state"`            // of its breaker: open or closed
	ForMS   int64     `json:"for_ms,omitempty"` // how long it stays open before it is probed
	Time    time.Time `json:"time"`
}

// Encode writes the event as JSON.
func (e *BackendEvent) Encode() []byte { return encodeJSON(e) }

// DecodeBackendEvent reads what [BackendEvent.Encode] wrote, of any version.
func DecodeBackendEvent(data []byte) (*BackendEvent, error) {
	e := &BackendEvent{}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode the event of a backend: %w", err)
	}
	return e, nil
}
