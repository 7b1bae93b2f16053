package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// HeartbeatInterval is how often a worker says that it lives.
const HeartbeatInterval = 500 * time.Millisecond

// HeartbeatMisses is after how many missed beats a worker counts as gone.
const HeartbeatMisses = 4

// BeatTenants is how many tenants a heartbeat tells of at most: those with most to tell.
const BeatTenants = 32

// Heartbeat is what a worker publishes every [HeartbeatInterval] and when it takes or releases work. The figures are only
// in those of the interval; whoever reads them keeps the last.
type Heartbeat struct {
	V        int           `json:"v"`
	Worker   string        `json:"worker"`
	Draining bool          `json:"draining,omitempty"` // it takes nothing new
	Models   []ModelBeat   `json:"models"`
	Tenants  []TenantUsage `json:"tenants,omitempty"` // figures
}

// ModelBeat is a worker's room for one model.
type ModelBeat struct {
	Model      string        `json:"model"` // encoded
	Slots      int           `json:"slots"`
	Used       int           `json:"used"`
	OutMS      int64         `json:"out_ms,omitempty"`     // how long still no call of the model or of its fallbacks may be made
	Held       []uint64      `json:"held,omitempty"`       // LLM_WORK sequences it runs
	Repeatable []uint64      `json:"repeatable,omitempty"` // those of them that another worker can go on with, whatever is visible
	Released   []uint64      `json:"released,omitempty"`   // LLM_WORK sequences it let go since the last beat
	Backends   []BackendBeat `json:"backends,omitempty"`   // figures
	Finished   *ModelUsage   `json:"finished,omitempty"`   // figures
}

// ModelUsage is what a worker's finished requests of a model were taken for and what they took, since it started. Only
// requests with an estimate and a usage count.
type ModelUsage struct {
	Requests  uint64 `json:"requests"`
	EstTokens uint64 `json:"est_tokens"` // by the router, before they ran
	Tokens    uint64 `json:"tokens"`     // of prompts and answers
}

// BackendBeat is how a backend fares.
type BackendBeat struct {
	Name     string `json:"name"`
	InFlight int    `json:"in_flight"`
	Limit    int    `json:"limit"`           // calls that it may have at once now
	State    string `json:"state,omitempty"` // why it gets no or few calls: open, half-open, refusing, drained
}

// TenantUsage is what a worker does for a tenant.
type TenantUsage struct {
	Tenant  string `json:"tenant"`
	Running int    `json:"running"`
	Tokens  uint64 `json:"tokens"` // of answers, written since the worker started; an event counts as one
}

// Encode writes the heartbeat as JSON.
func (h *Heartbeat) Encode() []byte { return encodeJSON(h) }

// DecodeHeartbeat reads what [Heartbeat.Encode] wrote, of any version.
func DecodeHeartbeat(data []byte) (*Heartbeat, error) {
	h := &Heartbeat{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("decode heartbeat: %w", err)
	}
	if err := ValidateRequestID(h.Worker); err != nil {
		return nil, fmt.Errorf("decode heartbeat: worker name: %w", err)
	}
	return h, nil
}
