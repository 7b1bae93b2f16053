package ingest

import "encoding/json"

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
