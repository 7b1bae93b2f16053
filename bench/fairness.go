package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	fairSlots    = 64                     // calls that the model takes at once
	fairFirst    = 300 * time.Millisecond // before the first token
	fairTokens   = 19                     // of an answer at most: answers of one length would all end together, time and again
	fairInterval = 10 * time.Millisecond  // between them
	fairTenants  = 9                      // and one that floods
	fairLoad     = 0.95                   // of its share, that each of the nine asks for
	fairFlood    = 10                     // times its share, that the other asks for

	fairJainLimit  = 0.95
	fairDelayLimit = 1.5
	fairShareLimit = 0.05
	weightClients  = 2 * fairSlots // of each tenant, so that all of them always wait
)

// fairWeights are those of the tenants of the second part.
var fairWeights = []int{1, 2, 4}

// fairnessCommand measures what tenants get of one model beside each other.
func fairnessCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("fairness", stderr)
	weir := weirFlag(flags)
	runs := flags.Int("runs", 5, "runs, of which the median counts")
	window := flags.Duration("window", 8*time.Second, "of each part of a run")
	weighed := flags.Duration("weights", time.Minute, "how long shares by weight are measured")
	quick := flags.Bool("quick", false, "one run, and shares by weight for ten seconds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		*runs, *weighed = 1, 10*time.Second
	}
	if *runs < 1 || *window <= 0 || *weighed <= 0 {
		return errors.New("use at least one run, and windows that take time")
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	mock, err := startMock(ctx, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mock.process.Close()) }()
	serve, err := startShared(ctx, program, dir, mock.addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, serve.process.Close()) }()

	capacity, err := saturate(ctx, serve.addr, *window)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, &serve.process.output)
	}
	fmt.Fprintf(stderr, "the model gives %.0f answers a second\n", capacity)
	var jain, ratio, alone, beside []float64
	for run := range *runs {
		r, err := fairRun(ctx, serve.addr, capacity/(fairTenants+1), *window)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, &serve.process.output)
		}
		fmt.Fprintf(stderr, "run %d: Jain index %.3f, first token p99 %.0f ms alone and %.0f ms beside the flood, which was refused %d times\n",
			run+1, r.jain, r.alone, r.beside, r.refused)
		jain, ratio, alone, beside = append(jain, r.jain), append(ratio, r.beside/r.alone), append(alone, r.alone), append(beside, r.beside)
	}
	off, shares, err := weightRun(ctx, serve.addr, *weighed)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, &serve.process.output)
	}
	fmt.Fprintf(stdout, "A model gives %.0f answers a second. Nine tenants at %.0f %% of their share and one at %d times its own: Jain index of the ten %.3f; the nine's first token p99 is %.0f ms, and %.0f ms without the flood (medians of %d runs). Weights %v got %s of the tokens.\n\n",
		capacity, fairLoad*100, fairFlood, median(jain), median(beside), median(alone), *runs, fairWeights, shares)
	return writeVerdict(stdout, []limit{
		{"Jain index of ten tenants' tokens", "at least 0.95", median(jain), "%.3f", median(jain) >= fairJainLimit},
		{"victims' first token p99, over alone", "at most 1.5", median(ratio), "%.2f", median(ratio) <= fairDelayLimit},
		{"largest distance of a share from its weight, %", "at most 5", off * 100, "%.1f", off <= fairShareLimit},
	}, false)
}

// startShared starts `weir serve` with a tenant for each part that somebody plays.
func startShared(ctx context.Context, program, dir, upstream string) (*target, error) {
	var addrs [2]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	var config strings.Builder
	fmt.Fprintf(&config, "models:\n  %s:\n    backends:\n      - {name: mock, protocol: openai, url: \"http://%s/v1\", max_in_flight: %d}\ndurability: process\nkeys:\n", benchModel, upstream, fairSlots)
	for i := range fairTenants + 1 {
		writeKey(&config, fairTenant(i))
	}
	for _, weight := range fairWeights {
		writeKey(&config, weightTenant(weight))
	}
	config.WriteString("tenants:\n")
	for _, weight := range fairWeights {
		fmt.Fprintf(&config, "  %s: {weight: %d}\n", weightTenant(weight), weight)
	}
	file := filepath.Join(dir, "shared.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return nil, err
	}
	return startTarget(ctx, "serve", addrs[0], "/readyz", program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--http", addrs[0], "--nats", addrs[1], "--admin", "off", "--log-level", "error", "--json")
}

func writeKey(config *strings.Builder, tenant string) {
	sum := sha256.Sum256([]byte(keyOf(tenant)))
	fmt.Fprintf(config, "  - {id: %s, tenant: %s, sha256: %s}\n", tenant, tenant, hex.EncodeToString(sum[:]))
}

func keyOf(tenant string) string       { return "bench-" + tenant }
func fairTenant(i int) string          { return fmt.Sprint("fair-", i) }
func weightTenant(weight int) string   { return fmt.Sprint("weight-", weight) }
func every(rate float64) time.Duration { return time.Duration(float64(time.Second) / rate) }

// fairFigures is what one run showed. Times are in milliseconds.
type fairFigures struct {
	jain, alone, beside float64
	refused             int
}

// saturate measures how many answers a second there are when all ten always wait: a tenth of that is a fair load.
func saturate(ctx context.Context, addr string, window time.Duration) (float64, error) {
	var crowd []*visitor
	for i := range fairTenants + 1 {
		v := newVisitor(addr, fairTenant(i), 0)
		v.clients = 2 * fairSlots / (fairTenants + 1)
		crowd = append(crowd, v)
	}
	if err := visitAll(ctx, crowd, window); err != nil {
		return 0, err
	}
	answers := 0
	for _, v := range crowd {
		answers += len(v.first)
	}
	if answers == 0 {
		return 0, errors.New("the model gave no answer in the window; use a longer one")
	}
	return float64(answers) / window.Seconds(), nil
}

// fairRun measures the nine alone, and then beside the flood. share is the answers a second that each of the ten may have.
func fairRun(ctx context.Context, addr string, share float64, window time.Duration) (fairFigures, error) {
	crowd := make([]*visitor, fairTenants, fairTenants+1)
	visit := func() error {
		for i := range crowd[:fairTenants] {
			crowd[i] = newVisitor(addr, fairTenant(i), every(share*fairLoad))
		}
		return visitAll(ctx, crowd, window)
	}
	if err := visit(); err != nil {
		return fairFigures{}, err
	}
	f := fairFigures{alone: firstTokens(crowd)}
	flood := newVisitor(addr, fairTenant(fairTenants), every(share*fairFlood))
	flood.mayBeRefused = true
	crowd = append(crowd, flood)
	if err := visit(); err != nil {
		return f, err
	}
	f.beside, f.refused = firstTokens(crowd[:fairTenants]), flood.refused
	f.jain = jainIndex(crowd)
	return f, nil
}

// firstTokens is the p99 of all of them, in milliseconds.
func firstTokens(crowd []*visitor) float64 {
	var all []time.Duration
	for _, v := range crowd {
		all = append(all, v.first...)
	}
	return float64(percentile(all, 99).Microseconds()) / 1000
}

// jainIndex of what they got: 1 when all got the same, 1/n when one got everything (Jain, Chiu and Hawe, 1984).
func jainIndex(crowd []*visitor) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range crowd {
		sum += float64(v.tokens)
		squares += float64(v.tokens) * float64(v.tokens)
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(crowd)) * squares)
}

// weightRun has tenants of different weights wait all the time and returns how far the share that is furthest off is from
// its weight, as a part of it.
func weightRun(ctx context.Context, addr string, window time.Duration) (off float64, shares string, err error) {
	var crowd []*visitor
	weights, tokens := 0, 0
	for _, weight := range fairWeights {
		v := newVisitor(addr, weightTenant(weight), 0)
		v.clients = weightClients
		crowd, weights = append(crowd, v), weights+weight
	}
	if err := visitAll(ctx, crowd, window); err != nil {
		return 0, "", err
	}
	for _, v := range crowd {
		tokens += v.tokens
	}
	var texts []string
	for i, v := range crowd {
		got, want := float64(v.tokens)/float64(tokens), float64(fairWeights[i])/float64(weights)
		off = max(off, max(got/want-1, 1-got/want))
		texts = append(texts, fmt.Sprintf("%.1f %%", got*100))
	}
	return off, strings.Join(slices.Compact(texts), ", "), nil
}
