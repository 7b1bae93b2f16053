package inference

import (
	"testing"
	"time"
)

func TestPutOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dispatch    int
		asked       time.Duration
		least, most time.Duration
	}{
		{1, 0, 4 * time.Second, 6 * time.Second},
		{2, 0, 8 * time.Second, 12 * time.Second},
		{3, 0, 16 * time.Second, 24 * time.Second},
		{1, time.Minute, time.Minute, time.Minute},
		{1, time.Hour, maxHold, maxHold},
		{40, 0, maxHold * 8 / 10, maxHold},
	} {
		for range 100 {
			if d := putOff(5*time.Second, c.dispatch, c.asked); d < c.least || d > c.most {
				t.Errorf("after dispatch %d, asked for %v: %v, want %v to %v", c.dispatch, c.asked, d, c.least, c.most)
			}
		}
	}
}
