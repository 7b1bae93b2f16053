package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// When retention has emptied the log, a stream is yielded from the result.
func TestEventsFromTheResult(t *testing.T) {
	t.Parallel()
	now := time.Now()
	log := eventlog.Pack(now, []*schemas.Frame{
		{Kind: schemas.KindDelta, Count: 2, Data: []byte("a\nb"), Time: now}, {Kind: schemas.KindDelta, Index: 2, Count: 1, Data: []byte("c"), Time: now}})
	failure := schemas.Errorf(schemas.CodeDeadline, "too late").Encode()
	for name, test := range map[string]struct {
		result schemas.Result
		from   uint64
		want   []string
		code   schemas.Code
	}{
		"streamed":      {schemas.Result{Events: log}, 1, []string{"1 b", "2 c"}, ""},
		"past the end":  {schemas.Result{Events: log}, 9, nil, ""},
		"broken off":    {schemas.Result{Events: log, Error: failure}, 2, []string{"2 c"}, schemas.CodeDeadline},
		"unary":         {schemas.Result{Response: json.RawMessage(`{}`)}, 0, []string{"0 {}"}, ""},
		"put together":  {schemas.Result{Events: log, Response: json.RawMessage(`{}`)}, 2, []string{"2 c"}, ""},
		"never started": {schemas.Result{Error: failure}, 0, nil, schemas.CodeDeadline},
		"deleted":       {schemas.Result{Status: schemas.StatusDeleted}, 0, nil, schemas.CodeStreamExpired},
	} {
		var got []string
		var last error
		for event, err := range events(schemas.Identity{Tenant: "acme", Request: "r"}, after(test.from, recorded(&test.result))) {
			if last = err; err == nil {
				got = append(got, fmt.Sprint(event.Cursor.Index, " ", string(event.Data)))
			}
		}
		var code schemas.Code
		if e, ok := errors.AsType[*schemas.Error](last); ok {
			code = e.Code
		}
		if !slices.Equal(got, test.want) || code != test.code {
			t.Errorf("%s: got %q and %v, want %q and %q", name, got, last, test.want, test.code)
		}
	}
}
