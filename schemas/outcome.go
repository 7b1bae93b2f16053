package schemas

import "encoding/json"

// Outcome is how a door tells what has become of a request.
type Outcome struct {
	ID            string          `json:"id"`
	Status        Status          `json:"status"`
	Model         string          `json:"model,omitempty"`
	Accepted      int64           `json:"accepted_at,omitempty"` // unix seconds
	Finished      int64           `json:"finished_at,omitempty"`
	Usage         *Usage          `json:"usage,omitempty"`
	Cost          *Cost           `json:"cost,omitempty"`
	FinishReasons []string        `json:"finish_reasons,omitempty"`
	Response      json.RawMessage `json:"response,omitempty"`
	Error         json.RawMessage `json:"error,omitempty"`
	Attempts      int             `json:"attempts,omitempty"`
	FirstTokenMS  float64         `json:"ttft_ms,omitempty"`
	DurationMS    float64         `json:"duration_ms,omitempty"`
	Deleted       bool            `json:"deleted,omitempty"`
}
