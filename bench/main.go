// Command bench measures Weir beside its neighbours: the same load, in one run, against the mock upstream called
// directly, against nginx as a plain streaming proxy, and against `weir serve` with each durability. Only ratios within
// one run mean anything, so the targets take turns, one second at a time, and a figure is the median over the rounds.
//
//	go run ./bench             the table and the verdict on the limits; `--quick` for a smoke run
//	go run ./bench idle        resident memory and time to ready of an idle `weir serve`
//	go run ./bench streams     what each of 1,000 open streams holds in a `weir ingest` of its own
//	go run ./bench cache       what a hit of the cache costs, and what the cache saves; `--quick` for a smoke run
//	go run ./bench fairness    what nine tenants get beside one that floods, and shares by weight (five minutes; -quick: one)
//	go run ./bench router      CPU of a router for a request that passes, and what 10,000 that wait take
//	go run ./bench worker      memory of a worker with 2,000 slow streams
//	go run ./bench coalesce    1,000 equal requests at once: calls of the model, and whole answers
//	go run ./bench mock        the mock upstream alone
//	go run ./bench load        the load generator alone, against one address
//
// What is counted: an answer when its last byte arrived, a token when its chunk arrived, CPU as user plus system time of the
// target's processes (the upstream's excluded) from the first request until the target is quiet again, so that work
// put off past the answer is paid for. An answer that is short or fails makes the run fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := "table"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	command := commands()[name]
	if command == nil {
		return fmt.Errorf("unknown command %q: use %s", name, strings.Join(slices.Sorted(maps.Keys(commands())), ", "))
	}
	return command(ctx, args, stdout, stderr)
}

type command func(ctx context.Context, args []string, stdout, stderr io.Writer) error

func commands() map[string]command {
	return map[string]command{
		"table": tableCommand, "idle": idleCommand, "streams": streamsCommand, "cache": cacheCommand, "fairness": fairnessCommand, "router": routerCommand,
		"worker": workerCommand, "coalesce": coalesceCommand, "mock": mockCommand, "load": loadCommand,
	}
}

func newFlags(name string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	return flags
}
