package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// out is the heartbeat of a worker whose backends are out for that long.
func out(worker string, d time.Duration) *schemas.Heartbeat {
	return &schemas.Heartbeat{V: 1, Worker: worker, Models: []schemas.ModelBeat{{Model: "m", OutMS: d.Milliseconds()}}}
}

func TestModelThatIsOut(t *testing.T) {
	t.Parallel()
	batch := func(it *item) { it.req.Priority = schemas.PriorityBatch }
	again := func(it *item) { it.retried = 2 }
	for name, c := range map[string]struct {
		beats []*schemas.Heartbeat
		edit  func(*item)
		want  schemas.Code
	}{
		"for long":                   {beats: []*schemas.Heartbeat{out("w1", 30*time.Second)}, want: schemas.CodeUnavailable},
		"for a moment":               {beats: []*schemas.Heartbeat{out("w1", outPatience)}},
		"in one worker":              {beats: []*schemas.Heartbeat{out("w1", 30*time.Second), out("w2", 0)}},
		"in one worker for a moment": {beats: []*schemas.Heartbeat{out("w1", 30*time.Second), out("w2", time.Second)}},
		"in every worker":            {beats: []*schemas.Heartbeat{out("w1", 30*time.Second), out("w2", 20*time.Second)}, want: schemas.CodeUnavailable},
		"a batch request":            {beats: []*schemas.Heartbeat{out("w1", 30*time.Second)}, edit: batch},
		"a request that was held":    {beats: []*schemas.Heartbeat{out("w1", 30*time.Second)}, edit: again},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				for _, beat := range c.beats {
					b.beat(beat)
				}
				b.arrive(c.edit)
				b.wantAnswer("idk_1", c.want)
			})
		})
	}
}

// What waits when the model goes out is refused soon, but for batch requests, which run when it is back.
func TestModelThatGoesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(&schemas.Heartbeat{V: 1, Worker: "w1", Models: []schemas.ModelBeat{{Model: "m", Slots: 1, Used: 1}}})
		b.arrive(nil)
		b.arrive(func(it *item) { it.req.Priority = schemas.PriorityBatch })
		b.keepBeating(out("w1", time.Minute), catalogAge+time.Second)
		b.wantAnswer("idk_1", schemas.CodeUnavailable)
		b.wantAnswer("idk_2", "")
		b.keepBeating(&schemas.Heartbeat{V: 1, Worker: "w1", Models: []schemas.ModelBeat{{Model: "m", Slots: 1}}}, time.Second)
		b.wantDispatched("idk_2")
	})
}
