package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// The names of the targets, in the order of the table's columns.
var targetNames = []string{"direct", "nginx", "process", "power"}

// row is a line of the table.
type row struct {
	label, scenario, metric, format string
}

var rows = []row{
	{"streamed answers/s, 32 clients", "streamed", answersPerSecond, "%.0f"},
	{"streamed tokens/s, 32 clients", "streamed", tokensPerSecond, "%.0f"},
	{"unary answers/s, 32 clients", "unary", answersPerSecond, "%.0f"},
	{"first token p50, 1 client, ms", "single", firstTokenP50, "%.2f"},
	{"first token p99, 1 client, ms", "single", firstTokenP99, "%.2f"},
	{"first token p50, 32 clients, ms", "streamed", firstTokenP50, "%.1f"},
	{"first token p99, 32 clients, ms", "streamed", firstTokenP99, "%.1f"},
	{"CPU µs per token, 32 clients", "streamed", cpuPerToken, "%.1f"},
	{"CPU µs per token, 200 streams at 50 tokens/s", "paced", cpuPerToken, "%.0f"},
	{"tokens/s, same", "paced", tokensPerSecond, "%.0f"},
	{"first token p50, same, ms", "paced", firstTokenP50, "%.1f"},
	{"chunk delay p50, same, ms", "paced", chunkDelayP50, "%.2f"},
	{"chunk delay p99, same, ms", "paced", chunkDelayP99, "%.1f"},
	{"quiet after streamed load, ms", "streamed", settling, "%.0f"},
	{"resident after paced load, MB", "paced", resident, "%.0f"},
}

func tableCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("table", stderr)
	quick := flags.Bool("quick", false, "one short round that shows that everything works; the limits are not judged")
	rounds := flags.Int("rounds", 10, "one-second rounds of each load on each target")
	names := flags.String("targets", strings.Join(targetNames, ","), "which of direct, nginx, process and power take part")
	weir := weirFlag(flags)
	raw := flags.Bool("raw", false, "load with the leanest client there is, which decodes nothing, instead of one that works as an SDK does")
	procs := flags.Int("procs", runtime.NumCPU(), "threads of the load generator, and of the mock, that may run at once; the limits are meant with the default")
	nginx := flags.String("nginx", "nginx", "the nginx program")
	parent := flags.String("dir", "", "where Weir keeps its data during the run; on a disk, or power is meaningless (default: the temporary directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	starts := idleStarts
	if *quick {
		*rounds, starts = 1, 1
	}
	beLight(*procs)
	dir, err := os.MkdirTemp(*parent, "weir-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fleet := &fleet{dir: dir, procs: *procs, nginx: *nginx, weir: *weir, starts: starts}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	if err := fleet.start(ctx, strings.Split(*names, ",")); err != nil {
		return err
	}
	all, err := measure(ctx, fleet.targets, scenarios(*quick, *raw), *rounds, stderr)
	if err != nil {
		return err
	}
	writeTable(stdout, fleet.targets, all, *rounds)
	return writeVerdict(stdout, judge(all, fleet.idle, fleet.targets), *quick)
}

// fleet is the targets of a run.
type fleet struct {
	dir, nginx, weir string
	procs            int // of the mock
	mock             *target
	targets          []*target // in the order of targetNames
	idle             *idleFigures
	starts           int // of an idle Weir
}

func (f *fleet) start(ctx context.Context, names []string) (err error) {
	for _, name := range names {
		if !slices.Contains(targetNames, name) {
			return fmt.Errorf("unknown target %q: use %s", name, strings.Join(targetNames, ", "))
		}
	}
	if f.mock, err = startMock(ctx, f.procs); err != nil {
		return err
	}
	for _, name := range targetNames {
		if !slices.Contains(names, name) {
			continue
		}
		started, err := f.startOne(ctx, name)
		if err != nil {
			return err
		}
		f.targets = append(f.targets, started)
	}
	return nil
}

func (f *fleet) startOne(ctx context.Context, name string) (_ *target, err error) {
	dir := filepath.Join(f.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	switch name {
	case "direct":
		return f.mock, nil
	case "nginx":
		return startNginx(ctx, f.nginx, dir, f.mock.addr)
	}
	if f.idle == nil {
		if f.weir, err = buildWeir(ctx, f.weir, f.dir); err != nil {
			return nil, err
		}
		if f.idle, err = measureIdle(ctx, f.weir, f.dir, f.starts); err != nil {
			return nil, err
		}
	}
	return startWeir(ctx, f.weir, dir, f.mock.addr, name)
}

func (f *fleet) Close() (err error) {
	for _, t := range f.targets {
		if t != f.mock {
			err = errors.Join(err, t.process.Close())
		}
	}
	if f.mock != nil {
		err = errors.Join(err, f.mock.process.Close())
	}
	return err
}

func writeTable(w io.Writer, targets []*target, all figures, rounds int) {
	fmt.Fprintf(w, "Medians over %d interleaved one-second rounds on %d cores (%s/%s, %s). For direct, CPU and memory are the mock's own; for the others the mock's are not counted.\n\n",
		rounds, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Fprint(w, "| |")
	for _, t := range targets {
		fmt.Fprintf(w, " %s |", t.name)
	}
	fmt.Fprint(w, "\n|---|", strings.Repeat("---|", len(targets)), "\n")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s |", r.label)
		for _, t := range targets {
			fmt.Fprintf(w, " "+r.format+" |", all.median(t.name, r.scenario, r.metric))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}
