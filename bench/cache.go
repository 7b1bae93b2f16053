package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// The limits of a hit.
const (
	hitFirstTokenMS = 1.0
	hitsPerSecond   = 5000.0
	hitLatencyMS    = 12.0
)

// cacheCommand measures what a hit costs, and what the cache saves when most prompts are repeated.
func cacheCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("cache", stderr)
	quick := flags.Bool("quick", false, "one short round that shows that everything works; the limits are not judged")
	rounds := flags.Int("rounds", 5, "two-second rounds of each load with each durability")
	asked := flags.Int("requests", 400, "requests of the claim, for each setting of the levels")
	only := flags.String("only", "hits,claim", "which of hits and claim to measure")
	weir := weirFlag(flags)
	procs := flags.Int("procs", runtime.NumCPU(), "threads of the load generator that may run at once; the limits are meant with the default")
	parent := flags.String("dir", "", "where Weir keeps its data during the run; on a disk, or power is meaningless (default: the temporary directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	window := 2 * time.Second
	if *quick {
		*rounds, *asked, window = 1, 60, 300*time.Millisecond
	}
	if *rounds < 1 || *asked < 10 {
		return errors.New("use at least one round and ten requests")
	}
	beLight(*procs)
	dir, program, remove, err := workplace(ctx, *parent, *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	var limits []limit
	for what := range strings.SplitSeq(*only, ",") {
		var more []limit
		switch what {
		case "hits":
			more, err = benchHits(ctx, program, dir, *rounds, window, stdout, stderr)
		case "claim":
			more, err = benchClaim(ctx, program, dir, *asked, stdout, stderr)
		default:
			err = fmt.Errorf("unknown part %q: use hits, claim or both", what)
		}
		if err != nil {
			return err
		}
		limits = append(limits, more...)
	}
	return writeVerdict(stdout, limits, *quick)
}

// cachingWeir is `weir serve` with the settings of the cache.
type cachingWeir struct {
	apart
	nats string
}

// startCaching starts a `weir serve` whose default tenant has every answer kept, or none with levels off.
func startCaching(ctx context.Context, program, dir, upstream, durability, levels string) (*cachingWeir, error) {
	var addrs [3]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("models:\n  %s:\n    backends:\n      - {name: mock, protocol: openai, url: \"http://%s/v1\", max_in_flight: 512}\ndurability: %s\n",
		benchModel, upstream, durability)
	if levels != "off" {
		config += fmt.Sprintf("cache: {levels: %s}\ntenants:\n  default: {cache: {mode: on}}\n", levels)
	}
	file := filepath.Join(dir, "weir.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	t, err := startTarget(ctx, durability, addrs[0], "/readyz", program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--http", addrs[0], "--nats", addrs[1], "--admin", addrs[2], "--log-level", "warn", "--json")
	if err != nil {
		return nil, err
	}
	return &cachingWeir{apart: apart{target: t, admin: addrs[2]}, nats: "nats://" + addrs[1]}, nil
}

// metric is the value of a metric without labels, 0 when there is none.
func (w *cachingWeir) metric(ctx context.Context, name string) (float64, error) {
	metrics, err := w.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(metrics, "\n"+name+" ")
	if !found {
		return 0, nil
	}
	value, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(value, 64)
}

// cachedBody is a request whose answer may be kept.
func cachedBody(prompt string, stream bool, d dials) []byte {
	return fmt.Appendf(nil, `{"model":%q,"temperature":0,"messages":[{"role":"user","content":%q}],"stream":%t,"mock":{"tokens":%d,"interval_us":%d,"first_us":%d}}`,
		benchModel, prompt, stream, d.Tokens, d.IntervalUS, d.FirstUS)
}
