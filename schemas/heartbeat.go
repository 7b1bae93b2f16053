package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// HeartbeatInterval is how often a worker and a router say that they live.
const HeartbeatInterval = 500 * time.Millisecond

// HeartbeatMisses is after how many missed beats a peer counts as gone.
const HeartbeatMisses = 4

// Heartbeat is what a worker publishes every [HeartbeatInterval] and when it takes or releases work.
type Heartbeat struct {
	V        int         `json:"v"`
	Worker   string      `json:"worker"`
	Draining bool        `json:"draining,omitempty"` // it takes nothing new
	Models   []ModelBeat `json:"models"`
}

// ModelBeat is a worker's room for one model.
type ModelBeat struct {
	Model    string   `json:"model"` // encoded
	Slots    int      `json:"slots"`
	Used     int      `json:"used"`
	Held     []uint64 `json:"held,omitempty"`     // LLM_WORK sequences it runs
	Released []uint64 `json:"released,omitempty"` // LLM_WORK sequences it let go since the last beat
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
