// Command weir runs the stages of the pipeline, alone or all in one process, and talks to it from a terminal.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx := untilSignal()
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "weir:", err)
	}
	os.Exit(exitCode(err))
}

// exitSignalled and the number of a signal are what the shell says of a process that the signal has ended.
const exitSignalled = 128

// untilSignal returns a context that the first signal ends. The second ends the process at once, from the moment at which
// the context is seen to have ended: as the system does it, unless that would ignore the signal, because a shell has its
// background jobs ignore Ctrl-C.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	ignored := signal.Ignored(os.Interrupt)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // it lives as long as the process
		<-signals
		if !ignored {
			signal.Stop(signals)
		}
		cancel()
		if second, ok := (<-signals).(syscall.Signal); ok {
			os.Exit(exitSignalled + int(second))
		}
	}()
	return ctx
}
