package bustest

import (
	"bytes"
	"runtime"
)

// Goroutines counts what runs, for tests that nothing is left. It leaves out what nats.go 1.55 forgets: when an object is
// stored before a helper of its publisher was scheduled, the helper waits for ever on a channel that is nil by then.
func Goroutines() int {
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	forgotten := bytes.Count(stacks, []byte("jetstream.(*jetStream).resetPendingAcksOnReconnect("))
	return runtime.NumGoroutine() - forgotten
}
