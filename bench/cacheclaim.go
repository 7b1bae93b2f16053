package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// The claim: an upstream that takes so long for an answer, and so many of a hundred prompts repeated.
const (
	claimUpstream = 800 * time.Millisecond
	claimRepeated = 68
	claimClients  = 16
)

// claimLevels are the settings of the cache that are compared.
var claimLevels = []string{"off", "memory", "stream", "both"}

// claimed is what was measured with one setting.
type claimed struct {
	levels    string
	asked     int
	upstream  int64
	all, hits []time.Duration
	coalesced int // equal requests at once, which shared a run
}

// benchClaim asks the same sequence of prompts with each setting of the levels.
func benchClaim(ctx context.Context, program, dir string, asked int, stdout, stderr io.Writer) ([]limit, error) {
	prompts := claimPrompts(asked)
	fmt.Fprintf(stdout, "%d requests, %d %% of their prompts repeated, by %d clients over HTTP; the upstream takes %s. durability process.\n\n", asked, claimRepeated, claimClients, claimUpstream)
	fmt.Fprint(stdout, "| levels | hits | shared a run | a hit p50, ms | p99 | all mean, ms | p50 | upstream calls | saved |\n|---|---|---|---|---|---|---|---|---|\n")
	var limits []limit
	for _, levels := range claimLevels {
		fmt.Fprintf(stderr, "claim: levels %s\n", levels)
		c, err := claim(ctx, program, filepath.Join(dir, "claim-"+levels), levels, prompts)
		if err != nil {
			return nil, err
		}
		c.write(stdout)
		if levels == "off" {
			continue
		}
		latency := milliseconds(percentile(c.hits, 50))
		limits = append(limits, limit{"a hit p50, levels " + levels + ", upstream at 800 ms, ms", fmt.Sprintf("at most %.0f", hitLatencyMS), latency, "%.1f",
			len(c.hits) > 0 && latency <= hitLatencyMS})
	}
	fmt.Fprintln(stdout)
	return limits, nil
}

// claimPrompts is the same sequence in every run: a prompt is new, or one of those before.
func claimPrompts(n int) []string {
	random := rand.New(rand.NewPCG(1, 2))
	prompts := make([]string, n)
	for i := range prompts {
		prompts[i] = fmt.Sprintf("Question %d.", i)
		if i > 0 && i*claimRepeated/100 > (i-1)*claimRepeated/100 { // evenly, in the exact number
			prompts[i] = prompts[random.IntN(i)]
		}
	}
	return prompts
}

func claim(ctx context.Context, program, dir, levels string, prompts []string) (_ *claimed, err error) {
	c := &claimed{levels: levels, asked: len(prompts)}
	var calls atomic.Int64
	mock := newMock(dials{Tokens: coalesceTokens})
	upstream, stop, err := serveHere(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			calls.Add(1)
		}
		mock.ServeHTTP(w, r)
	}))
	if err != nil {
		return nil, err
	}
	defer stop()
	w, err := startCaching(ctx, program, dir, upstream, "process", levels)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.process.Close()) }()
	var next atomic.Int64
	var mu sync.Mutex
	var errs []error
	var running sync.WaitGroup
	for range claimClients {
		running.Go(func() {
			caller := &http.Client{Transport: &http.Transport{DisableCompression: true}}
			defer caller.CloseIdleConnections()
			for i := next.Add(1) - 1; i < int64(len(prompts)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				took, did, err := askOnce(ctx, caller, "http://"+w.addr+completionsPath, prompts[i])
				mu.Lock()
				c.all = append(c.all, took)
				switch did {
				case "HIT":
					c.hits = append(c.hits, took)
				case "COALESCED":
					c.coalesced++
				}
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	running.Wait()
	if err := errors.Join(ctx.Err(), firstFailure(errs)); err != nil {
		return nil, fmt.Errorf("claim, levels %s: %w\n%s", levels, err, &w.process.output)
	}
	c.upstream = calls.Load()
	return c, nil
}

func askOnce(ctx context.Context, caller *http.Client, url, prompt string) (took time.Duration, did string, err error) {
	body := cachedBody(prompt, false, dials{Tokens: hitTokens, FirstUS: claimUpstream.Microseconds()})
	begun := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := caller.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || bytes.Count(text, []byte(" token")) != hitTokens) {
		err = fmt.Errorf("status %d: %.300s", response.StatusCode, text)
	}
	return time.Since(begun), response.Header.Get("Llm-Cache"), err
}

func (c *claimed) write(w io.Writer) {
	var sum time.Duration
	for _, took := range c.all {
		sum += took
	}
	percent := func(part int) float64 { return 100 * float64(part) / float64(c.asked) }
	fmt.Fprintf(w, "| %s | %.0f %% | %.0f %% | %.1f | %.1f | %.0f | %.0f | %d | %.0f %% |\n", c.levels, percent(len(c.hits)), percent(c.coalesced),
		milliseconds(percentile(c.hits, 50)), milliseconds(percentile(c.hits, 99)),
		milliseconds(sum)/float64(max(len(c.all), 1)), milliseconds(percentile(c.all, 50)), c.upstream, percent(c.asked-int(c.upstream)))
}
