package main

import "testing"

func TestHeapGrowth(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, tt := range []struct {
		live, allocated uint64
		want            int
	}{
		{0, 0, 400}, {1 * mb, 0, 400}, {5 * mb, 0, 160}, {5 * mb, 500 * mb, 400}, // a small heap may grow
		{48 * mb, 500 * mb, 400}, {64 * mb, 500 * mb, 300}, {96 * mb, 500 * mb, 200}, {192 * mb, 500 * mb, 100}, {8000 * mb, 9000 * mb, 100}, // busy
		{96 * mb, 30 * mb, 60}, {80 * mb, 3 * mb, 10}, {96 * mb, 0, 10}, {300 * mb, 30 * mb, 20}, {8000 * mb, 0, 10}, // little to do
	} {
		if got := heapGrowth(tt.live, tt.allocated); got != tt.want {
			t.Errorf("%d MB live, %d MB allocated: %d %%, want %d", tt.live/mb, tt.allocated/mb, got, tt.want)
		}
	}
}
