package ingest

import (
	"encoding/json"
	"net/http"

	"github.com/weir-llm/weir/schemas"
)

const headerApplied = "Preference-Applied"

// acknowledgement says under which id the answer will be.
type acknowledgement struct {
	ID string `json:"id"`
}

// acknowledge answers once the request can be found by any ingest. From then on it is one whose reader has left, and that
// goes on all the same.
func (n *submission) acknowledge(all frames, held func()) (finished bool, err error) {
	n.s.readers.keep(n.id)
	if held != nil {
		held()
	}
	for f, err := range all { // the first one tells whether a request of the same name is this one
		if err != nil {
			return false, err
		}
		return f.Kind.Terminal(), n.back.accepted()
	}
	return false, errEnded
}

func (c *call) accepted() error {
	c.w.Header().Set(headerApplied, schemas.PreferAsync)
	c.w.Header().Set("Location", "/v1/streams/"+c.id.Request)
	return c.writeJSON(http.StatusAccepted, acknowledgement{ID: c.id.Request})
}

func (i *inbox) accepted() error {
	body, err := json.Marshal(acknowledgement{ID: i.id.Request})
	if err != nil {
		return err
	}
	return i.respond(body)
}
