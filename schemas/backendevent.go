package schemas

import "time"

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
