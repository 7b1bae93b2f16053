package ingest

import (
	"encoding/json"
)

// askResult is the payload of a resume that asks for the final record instead of the events, as HTTP does at
// /v1/streams/{id}/result (docs/adr/0011).
const askResult = "result"

// result answers with the final record in one message, or with how far the request is.
func (v *service) result(i *inbox) error {
	if err := i.target(); err != nil {
		return err
	}
	o, _, err := v.s.outcome(&i.exchange)
	if err != nil {
		return err
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return i.respond(body)
}
