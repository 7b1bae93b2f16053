package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// RouterBeatInterval is how often a router says that it lives. It is shorter than a worker's, because a standby must be
// dispatching within two seconds of the death of an active router (docs/adr/0016).
const RouterBeatInterval = 200 * time.Millisecond

// RouterBeatMisses is after how many missed beats a router counts as gone.
const RouterBeatMisses = 5

// RouterBeat is what a router publishes every [RouterBeatInterval], and when it takes or leaves a partition. The figures
// are in one every [HeartbeatInterval]; whoever reads them keeps the last.
type RouterBeat struct {
	V          int            `json:"v"`
	Router     string         `json:"router"`
	Started    int64          `json:"started"`            // unix milliseconds: the elder keeps what two claim
	Draining   bool           `json:"draining,omitempty"` // it leaves
	Eligible   []int          `json:"eligible"`           // partitions of LLM_REQUESTS that it may serve
	Partitions []int          `json:"partitions"`         // those that it serves
	Figures    *RouterFigures `json:"figures,omitempty"`
}

// RouterFigures are what a router holds.
type RouterFigures struct {
	Held    int           `json:"held"`   // requests taken from the stream and not settled
	Queued  int           `json:"queued"` // those that wait for room
	Models  []ModelQueue  `json:"models,omitempty"`
	Tenants []TenantQueue `json:"tenants,omitempty"` // at most [BeatTenants], those with most waiting
	More    int           `json:"more,omitempty"`    // tenants that wait beside these
}

// ModelQueue is what waits for a model.
type ModelQueue struct {
	Model       string `json:"model"` // encoded
	Queued      int    `json:"queued"`
	Outstanding int    `json:"outstanding"` // dispatched and not yet with a worker
}

// TenantQueue is what waits of a tenant.
type TenantQueue struct {
	Tenant    string `json:"tenant"`
	Queued    int    `json:"queued"`
	WaitingMS int64  `json:"waiting_ms"`           // of the one that waits longest
	PredictMS int64  `json:"predict_ms,omitempty"` // what a request that came now would wait
	Limit     string `json:"limit,omitempty"`      // which of its limits the tenant is at
}

// Encode writes the heartbeat as JSON.
func (b *RouterBeat) Encode() []byte { return encodeJSON(b) }

// DecodeRouterBeat reads what [RouterBeat.Encode] wrote, of any version.
func DecodeRouterBeat(data []byte) (*RouterBeat, error) {
	b := &RouterBeat{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("decode a router's heartbeat: %w", err)
	}
	if err := ValidateRequestID(b.Router); err != nil {
		return nil, fmt.Errorf("decode a router's heartbeat: name: %w", err)
	}
	return b, nil
}
