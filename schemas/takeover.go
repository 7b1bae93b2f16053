package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// EventTakeover is the kind of a [Takeover].
const EventTakeover = "takeover"

// Takeover is an event: a router has taken over what another router or a worker had left, or a worker that was taken for
// dead is there again.
type Takeover struct {
	V          int       `json:"v"`
	Of         string    `json:"of"`                    // router or worker
	Name       string    `json:"name,omitempty"`        // of a worker
	Model      string    `json:"model,omitempty"`       // encoded; of a worker's
	Partition  *int      `json:"partition,omitempty"`   // of LLM_REQUESTS; of a router's
	Count      int       `json:"count"`                 // requests
	FalseAlarm bool      `json:"false_alarm,omitempty"` // it was not dead
	By         string    `json:"by"`                    // the router
	Time       time.Time `json:"time"`
}

// Encode writes the event as JSON.
func (t *Takeover) Encode() []byte { return encodeJSON(t) }

// DecodeTakeover reads what [Takeover.Encode] wrote, of any version.
func DecodeTakeover(data []byte) (*Takeover, error) {
	t := &Takeover{}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("decode a take-over: %w", err)
	}
	return t, nil
}
