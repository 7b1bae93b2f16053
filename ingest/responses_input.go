package ingest

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-llm/weir/internal/responses"
	"github.com/weir-llm/weir/schemas"
)

// How many items a page of a list has.
const (
	defaultPage = 20
	maxPage     = 100
)

// inputItems answers GET /v1/responses/{id}/input_items, newest first unless the caller wants it otherwise.
func (s *Ingest) inputItems(c *call) error {
	r, err := s.lookupResponse(c)
	if err != nil {
		return err
	}
	limit, descending, err := c.page()
	if err != nil {
		return err
	}
	items, ids := responses.InputItems(c.id.Request, r.body)
	if descending {
		slices.Reverse(items)
		slices.Reverse(ids)
	}
	if after := c.r.URL.Query().Get("after"); after != "" {
		at := slices.Index(ids, after)
		if at < 0 {
			return schemas.Errorf(schemas.CodeInvalidValue, "after names no item of this list: give the last_id of the page before").WithParam("after")
		}
		items, ids = items[at+1:], ids[at+1:]
	}
	more := len(items) > limit
	if more {
		items, ids = items[:limit], ids[:limit]
	}
	return c.write(http.StatusOK, encodePage(items, ids, more))
}

// page reads how much of a list the caller wants, and in which order.
func (c *call) page() (limit int, descending bool, err error) {
	query := c.r.URL.Query()
	limit = defaultPage
	if value := query.Get("limit"); value != "" {
		if limit, err = strconv.Atoi(value); err != nil || limit < 1 || limit > maxPage {
			return 0, false, schemas.Errorf(schemas.CodeInvalidValue, "limit is %.100q: give a number from 1 to %d", value, maxPage).WithParam("limit")
		}
	}
	switch order := query.Get("order"); order {
	case "", "desc":
		return limit, true, nil
	case "asc":
		return limit, false, nil
	default:
		return 0, false, schemas.Errorf(schemas.CodeInvalidValue, "order is %.100q: use asc or desc", order).WithParam("order")
	}
}

func encodePage(items [][]byte, ids []string, more bool) []byte {
	b := []byte(`{"object":"list","data":[`)
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, item...)
	}
	b = append(appendID(append(b, `],"first_id":`...), ids, 0), `,"last_id":`...)
	b = append(appendID(b, ids, len(ids)-1), `,"has_more":`...)
	return append(strconv.AppendBool(b, more), '}')
}

// appendID writes one of the ids, or null when there is none.
func appendID(b []byte, ids []string, i int) []byte {
	if len(ids) == 0 {
		return append(b, "null"...)
	}
	b, _ = jsontext.AppendQuote(b, ids[i]) // the error tells of invalid UTF-8, which is replaced
	return b
}
