package router

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// However much a tenant has in a lane, one job of it goes before the next of another.
func TestALaneGoesByTenant(t *testing.T) {
	t.Parallel()
	finished := make(chan func(), 1)
	l := &lane{width: 1, finished: finished}
	var went []string
	submit := func(tenant, name string, then func()) {
		l.submitFor(tenant, func() func() {
			return func() { went = append(went, name); then() }
		})
	}
	nothing := func() {}
	for n := range 1000 {
		submit("flood", fmt.Sprint("flood ", n), func() {
			if n == 0 { // what follows a job has to wait as well
				submit("flood", "flood 1000", nothing)
			}
		})
	}
	submit("a", "a 0", nothing)
	submit("b", "b 0", nothing)
	submit("a", "a 1", nothing)
	l.submit(func() func() { return func() { went = append(went, "nobody's") } })
	for range 1005 {
		(<-finished)()
	}
	if diff := cmp.Diff([]string{"flood 0", "flood 1", "a 0", "b 0", "nobody's", "flood 2", "a 1", "flood 3"}, went[:8]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for n := range 1001 {
		if i := slices.Index(went, fmt.Sprint("flood ", n)); i < n {
			t.Fatalf("job %d of the flood went as number %d", n, i)
		}
	}
	if l.running != 0 || len(l.waiting) != 0 || len(l.turns) != 0 {
		t.Errorf("left behind: %+v", l)
	}
}

func TestALaneThatIsCleared(t *testing.T) {
	t.Parallel()
	finished := make(chan func(), 1)
	l := &lane{width: 1, finished: finished}
	ran := 0
	for range 3 {
		l.submitFor("acme", func() func() { return func() { ran++ } })
	}
	l.clear()
	(<-finished)()
	if ran != 1 || l.running != 0 {
		t.Errorf("%d jobs ran, and %d run", ran, l.running)
	}
}
