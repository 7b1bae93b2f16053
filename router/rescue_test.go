package router

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

// value is that of a counter.
func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func TestTheFirstRouterTakesTheWorkOfALostWorkerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		held := beatOf("w", schemas.ModelBeat{Model: "m", Slots: 4, Used: 2, Held: []uint64{7, 9}, Repeatable: []uint64{9}})
		b.beat(held)
		time.Sleep(workerGone - tick)
		synctest.Wait()
		if len(b.bus.told().rescued) > 0 {
			t.Fatalf("%v were taken back before the worker had missed four beats", b.bus.told().rescued)
		}
		time.Sleep(3 * tick)
		synctest.Wait()
		want := []lostWork{{worker: "w", model: "m", held: []uint64{7, 9}, repeatable: []uint64{9}}}
		if diff := cmp.Diff(want, b.bus.told().rescued, cmp.AllowUnexported(lostWork{})); diff != "" {
			t.Errorf("taken back (-want +got):\n%s", diff)
		}
		if n := value(t, b.loop.meters.takeovers.WithLabelValues(takeoverWorker)); n != 2 {
			t.Errorf("%v take-overs are counted, want 2", n)
		}
		b.beat(held)
		b.beat(held)
		if n := value(t, b.loop.meters.falseAlarms); n != 1 {
			t.Errorf("%v false alarms are counted, want 1", n)
		}
		if events := strings.Join(b.bus.told().events, " "); strings.Count(events, `"of":"worker"`) != 2 || !strings.Contains(events, `"false_alarm":true`) {
			t.Errorf("events: %s", events)
		}
	})
}

func TestAnotherRouterLeavesTheWorkToTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		stop := b.peer("elder", 1, everywhere...)
		defer stop()
		b.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 4, Used: 1, Held: []uint64{7}}))
		time.Sleep(2 * workerGone)
		synctest.Wait()
		if len(b.bus.told().rescued) > 0 {
			t.Errorf("%v were taken back twice", b.bus.told().rescued)
		}
	})
}

func TestSuspectsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		held := beatOf("w", schemas.ModelBeat{Model: "m", Slots: 4, Used: 1, Held: []uint64{7}})
		b.beat(held)
		time.Sleep(suspectFor + time.Minute)
		b.beat(held)
		if n := value(t, b.loop.meters.falseAlarms); n != 0 {
			t.Errorf("%v false alarms are counted, want none after so long", n)
		}
	})
}
