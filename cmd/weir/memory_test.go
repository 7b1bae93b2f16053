package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHeapGrowth(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, tt := range []struct {
		live, second uint64 // what is live, and allocated in a second
		want         int
	}{
		{0, 0, 400}, {1 * mb, 0, 200}, {5 * mb, 0, 150}, {5 * mb, 500 * mb, 1600}, // a small heap may grow
		{24 * mb, 500 * mb, 800}, {64 * mb, 500 * mb, 300}, {64 * mb, 50 * mb, 100}, {96 * mb, 500 * mb, 200}, {192 * mb, 500 * mb, 100}, {8000 * mb, 9000 * mb, 100}, // busy
		{96 * mb, 30 * mb, 40}, {80 * mb, 3 * mb, 10}, {96 * mb, 0, 10}, {300 * mb, 30 * mb, 10}, {8000 * mb, 0, 10}, // little to do
	} {
		if got := heapGrowth(tt.live, tt.second*uint64(tuneEvery)/uint64(time.Second), 192*mb); got != tt.want {
			t.Errorf("%d MB live, %d MB/s allocated: %d %%, want %d", tt.live/mb, tt.second/mb, got, tt.want)
		}
	}
}

func TestAPaceHoldsForAWhile(t *testing.T) {
	t.Parallel()
	const ticks = int(busyFor / tuneEvery)
	busy, slow := &pace{}, &pace{}
	busy.note(busyPace)
	slow.note(busyPace - 1)
	for i := 1; i < ticks; i++ {
		if got := busy.note(2); got != busyPace {
			t.Fatalf("%s after a burst of %d the pace is %d", time.Duration(i)*tuneEvery, busyPace, got)
		}
		if got := slow.note(2); got > busyPace-busyPace/forgetShare {
			t.Fatalf("%s after less than a burst the pace is %d", time.Duration(i)*tuneEvery, got)
		}
	}
	if got := busy.note(2); got > busyPace/4 || got < 2 {
		t.Errorf("%s after a burst of %d, and 2 since, the pace is %d", busyFor, busyPace, got)
	}
}

func TestMostGarbage(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for memory, want := range map[uint64]uint64{0: 192, 256: 64, 1024: 64, 2048: 128, 8192: 512, 1 << 20: 512} {
		if got := mostGarbage(memory * mb); got != want*mb {
			t.Errorf("of %d MB: %d MB, want %d", memory, got/mb, want)
		}
	}
}

func TestMemoryHere(t *testing.T) {
	t.Parallel()
	const meminfo = "MemTotal:       24576000 kB\nMemFree:        1 kB\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"a machine":                 {map[string]string{"proc/meminfo": meminfo}, 24576000 << 10},
		"a container":               {map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "536870912\n"}, 512 << 20},
		"a container of v1":         {map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"}, 512 << 20},
		"a container with all":      {map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "max\n"}, 24576000 << 10},
		"a limit beyond the memory": {map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 24576000 << 10},
		"another system":            {nil, 0},
		"nonsense":                  {map[string]string{"proc/meminfo": "MemTotal: much\n", "sys/fs/cgroup/memory.max": ""}, 0},
	} {
		root := t.TempDir()
		for file, text := range tt.files {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := memoryHere(root); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
