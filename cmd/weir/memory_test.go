package main

import "testing"

func TestHeapGrowth(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 48 << 20: 400, 64 << 20: 300, 80 << 20: 200, 96 << 20: 200, 192 << 20: 100, 8 << 30: 100} {
		if got := heapGrowth(live); got != want {
			t.Errorf("%d MB live: %d %%, want %d", live>>20, got, want)
		}
	}
}
