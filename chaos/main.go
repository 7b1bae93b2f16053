// Command chaos kills what can be killed while requests run, stops and wakes it at random, and checks that each request ends
// in exactly one result and that no reader is ever shown a gap, a duplicate or an answer that is silently short.
//
//	go run ./chaos            the whole matrix
//	go run ./chaos --short    a part of it, for every landing
//	go run ./chaos --layout "long lease"   one layout: separate, replicated, all pieces, serve, long lease, drowsy, drowsy cluster
//
// It builds weir and nats-server, runs them as processes on loopback ports of its own, and leaves nothing behind. With
// --keep the folder with stores and logs stays.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	short := flags.Bool("short", false, "half of the moments, and no NATS cluster")
	only := flags.String("layout", "", "only this layout")
	rounds := flags.Int("rounds", 1, "how often the whole matrix runs")
	keep := flags.Bool("keep", false, "keep the folder with stores and logs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weir-chaos-")
	if err != nil {
		return err
	}
	if *keep {
		fmt.Fprintln(out, "folder:", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if err := build(ctx, dir); err != nil {
		return err
	}
	report := &report{out: out}
	for range *rounds {
		for _, layout := range layouts(*short) {
			if *only != "" && *only != string(layout) {
				continue
			}
			if err := runLayout(ctx, dir, layout, moments(*short), report); err != nil {
				return err
			}
		}
	}
	if *only == "" {
		if err := runFullDisk(ctx, dir, report); err != nil {
			return err
		}
	}
	return report.close()
}

// layouts of a run. Those with a cluster take long to elect their leaders and are left to the whole one.
func layouts(short bool) []layout {
	if short {
		return []layout{separate, single}
	}
	return []layout{separate, replicated, pieces, single, patient, drowsy, drowsyCluster}
}

// build compiles what the matrix runs.
func build(ctx context.Context, dir string) error {
	for program, source := range map[string]string{"weir": "./cmd/weir", "nats-server": "github.com/nats-io/nats-server/v2"} {
		command := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, program), source)
		if text, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, text)
		}
	}
	return nil
}
