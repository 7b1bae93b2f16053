package record

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// TestCharge charges for what ran, and for nothing else.
func TestCharge(t *testing.T) {
	sent := time.UnixMilli(1_795_521_660_123)
	start := &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 1, Dispatch: 1}}
	delta := &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Count: 3, Data: []byte("{}\n{}\n{}")}
	failed := &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Index: 3, Data: schemas.Errorf(schemas.CodeUpstreamError, "x").Encode()}
	ended := func(s schemas.Summary) *schemas.Frame {
		s.Status = schemas.StatusCompleted
		return &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Index: 3, Data: s.Encode()}
	}
	usage := &schemas.Usage{PromptTokens: 40, CompletionTokens: 5, TotalTokens: 45}
	reserve := schemas.Reserve{Requests: 1, Input: 50, Output: 150, Money: 2000}
	for name, c := range map[string]struct {
		reserve schemas.Reserve
		frames  []*schemas.Frame
		want    schemas.Charge
	}{
		"usage and cost":           {reserve, []*schemas.Frame{start, delta, ended(schemas.Summary{Usage: usage, Cost: &schemas.Cost{Amount: 77}})}, schemas.Charge{Requests: 1, Tokens: 45, Money: 77}},
		"usage without a price":    {reserve, []*schemas.Frame{start, delta, ended(schemas.Summary{Usage: usage})}, schemas.Charge{Requests: 1, Tokens: 45, Money: 450}},
		"no usage":                 {reserve, []*schemas.Frame{start, delta, ended(schemas.Summary{})}, schemas.Charge{Requests: 1, Tokens: 53, Money: 530}},
		"cut":                      {reserve, []*schemas.Frame{start, delta, failed}, schemas.Charge{Requests: 1, Tokens: 53, Money: 530}},
		"failed before an event":   {reserve, []*schemas.Frame{start, failed}, schemas.Charge{Requests: 1}},
		"never ran":                {reserve, []*schemas.Frame{failed}, schemas.Charge{}},
		"answered without a model": {schemas.Reserve{Requests: 1}, []*schemas.Frame{start, delta, ended(schemas.Summary{Usage: usage})}, schemas.Charge{Requests: 1}},
	} {
		if name == "failed before an event" {
			c.frames[1] = &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Data: failed.Data}
		}
		if name == "never ran" {
			c.frames[0] = &schemas.Frame{Kind: schemas.KindError, Data: failed.Data}
		}
		w := &schemas.Work{Request: schemas.Request{Identity: schemas.Identity{Tenant: "t", Request: "r"}, ModelToken: "m", Op: schemas.OpChat}, Reserve: &c.reserve, Sent: sent}
		c.want.Reserve, c.want.Sent = c.reserve, sent
		if diff := cmp.Diff(&c.want, Build(w, nil, &bus.Chain{Frames: c.frames}, nil).Charge); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if w.Reserve = nil; Build(w, nil, &bus.Chain{Frames: c.frames}, nil).Charge != nil {
			t.Errorf("%s: a tenant without limits is charged", name)
		}
	}
}
