package router

import (
	"testing"
	"time"
	"unsafe"

	"github.com/weir-llm/weir/schemas"
)

func TestStreamClock(t *testing.T) {
	t.Parallel()
	local := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name  string
		learn func(c *streamClock)
		want  time.Duration // stream minus local
	}{
		{"nothing known: the clocks are equal", func(*streamClock) {}, 0},
		{"an old message says nothing about a slow stream", func(c *streamClock) { c.observe(local, local.Add(-time.Hour), false) }, 0},
		{"a stamp from the future proves that the stream is ahead", func(c *streamClock) { c.observe(local, local.Add(time.Minute), false) }, time.Minute},
		{"a fresh message tells the skew", func(c *streamClock) { c.observe(local, local.Add(-time.Minute), true) }, -time.Minute},
		{"a later stamp corrects a fresh one that was late", func(c *streamClock) {
			c.observe(local, local.Add(-time.Minute), true)
			c.observe(local, local.Add(-time.Second), false)
		}, -time.Second},
		{"a fresh message follows a clock that was set", func(c *streamClock) {
			c.observe(local, local, true)
			c.observe(local, local.Add(-time.Minute), true)
		}, -time.Minute},
	} {
		c := streamClock{base: local}
		test.learn(&c)
		if got := c.at(local).Sub(local); got != test.want {
			t.Errorf("%s: stream minus local = %v, want %v", test.name, got, test.want)
		}
	}
}

// stepped is a local time as it would have been read had somebody set the clock forward: the wall reading is another, the
// monotonic one is the same. No function of package time makes one.
func stepped(t *testing.T, local time.Time, seconds int) time.Time {
	t.Helper()
	got := local
	*(*uint64)(unsafe.Pointer(&got)) += uint64(seconds) << 30 // the seconds of a time with a monotonic reading
	if by := got.Round(0).Sub(local.Round(0)); by != time.Duration(seconds)*time.Second || got.Sub(local) != 0 {
		t.Fatalf("the wall clock went %v, the monotonic one %v: time.Time is made in another way now", by, got.Sub(local))
	}
	return got
}

func TestAStepOfTheClockIsNoTime(t *testing.T) {
	t.Parallel()
	base := time.Now()
	for _, hours := range []int{-1, 0, 1} {
		read := func(after time.Duration) time.Time { return stepped(t, base.Add(after), hours*3600) }
		slow := time.Hour
		for name, c := range map[string]struct{ learnt, asked time.Time }{
			"before the skew is learnt": {read(time.Minute), read(2 * time.Minute)},
			"behind it":                 {base.Add(time.Minute), read(2 * time.Minute)},
		} {
			clock := streamClock{base: base}
			clock.observe(c.learnt, base.Add(slow+time.Minute), true)
			if got, want := clock.at(c.asked), base.Round(0).Add(slow+2*time.Minute); !got.Equal(want) {
				t.Errorf("a step of %d h %s: the stream's clock shows %v, want %v", hours, name, got, want)
			}
		}
	}
}

// Who sets the clock of the machine ends nobody's time to wait, and gives nobody more. It is no test in a bubble, where times
// have no monotonic reading.
func TestAStepOfTheClockAnswersNobody(t *testing.T) {
	t.Parallel()
	z := byHand(t, nil)
	z.take()
	z.loop.tick(t.Context(), stepped(t, time.Now(), 3600))
	if z.loop.queue.len() != 1 {
		t.Error("the request does not wait any more")
	}
	late := stepped(t, time.Now().Add(schemas.DefaultDeadline), -3600)
	z.loop.ticked = late // it was not asleep
	z.loop.tick(t.Context(), late)
	if z.loop.queue.len() != 0 {
		t.Error("the request waits beyond its deadline")
	}
}
