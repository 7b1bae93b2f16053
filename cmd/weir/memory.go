package main

import "runtime/debug"

// heapGrowth is how far the heap may grow between two collections, in percent of what is live. Little of it is, since
// requests pass through, so that the default of 100 would collect a dozen times a second under load.
const heapGrowth = 400

// tuneMemory sets when the collector runs, unless the operator did with GOGC.
func tuneMemory(env map[string]string) {
	if env["GOGC"] == "" {
		debug.SetGCPercent(heapGrowth)
	}
}
