package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	coalesceTokens = 64
	coalesceFirst  = 3 * time.Second // of the model: long enough that all have asked
	coalesceStep   = 5 * time.Millisecond
)

// coalesceFigures are of requests that are equal and sent at once.
type coalesceFigures struct {
	calls, whole int64 // of the model; answers that were all there
	first, last  time.Duration
}

// coalesceCommand sends equal requests at once, unary and streamed, and counts the calls of the model and the whole answers.
func coalesceCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("coalesce", stderr)
	weir := weirFlag(flags)
	n := flags.Int("n", 1000, "equal requests at once")
	durability := flags.String("durability", "process", "of weir serve")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 1 {
		return fmt.Errorf("%d requests: send at least one", *n)
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	var calls atomic.Int64
	upstream, stop, err := countingMock(&calls)
	if err != nil {
		return err
	}
	defer stop()
	target, err := startCoalescing(ctx, program, dir, upstream, *durability)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.process.Close()) }()
	var limits []limit
	for _, kind := range []struct {
		name   string
		stream bool
	}{{"unary", false}, {"streamed", true}} {
		calls.Store(0)
		figures, err := sendEqual(ctx, target.addr, *n, kind.stream)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", kind.name, err, &target.process.output)
		}
		figures.calls = calls.Load()
		fmt.Fprintf(stdout, "%d equal %s requests: %d calls of the model, %d whole answers; first event after %d to %d ms, of which the model takes %d\n",
			*n, kind.name, figures.calls, figures.whole, figures.first.Milliseconds(), figures.last.Milliseconds(), coalesceFirst.Milliseconds())
		limits = append(limits,
			limit{what: kind.name + ", calls of the model", want: "1", measured: float64(figures.calls), format: "%.0f", met: figures.calls == 1},
			limit{what: kind.name + ", whole answers", want: fmt.Sprint(*n), measured: float64(figures.whole), format: "%.0f", met: figures.whole == int64(*n)})
	}
	return writeVerdict(stdout, limits, false)
}

// countingMock serves the mock upstream here and counts what it is asked.
func countingMock(calls *atomic.Int64) (addr string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	mock := newMock(dials{Tokens: coalesceTokens, FirstUS: coalesceFirst.Microseconds(), IntervalUS: coalesceStep.Microseconds()})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			calls.Add(1)
		}
		mock.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return listener.Addr().String(), func() { _ = server.Close(); serving.Wait() }, nil
}

// startCoalescing starts `weir serve` with nothing set but that requests share runs.
func startCoalescing(ctx context.Context, program, dir, upstream, durability string) (*target, error) {
	var addrs [3]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	file := filepath.Join(dir, "coalesce.yaml")
	config := fmt.Sprintf("models:\n  %s:\n    backends: [{name: mock, protocol: openai, url: \"http://%s/v1\", max_in_flight: 512}]\ntenants: {default: {coalesce: on}}\ndurability: %s\n",
		benchModel, upstream, durability)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return startTarget(ctx, "coalesce", addrs[0], "/readyz", program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--http", addrs[0], "--nats", addrs[1], "--admin", addrs[2], "--log-level", "warn", "--json")
}

// sendEqual sends n equal requests, each on a connection of its own, and reads all answers.
func sendEqual(ctx context.Context, addr string, n int, stream bool) (*coalesceFigures, error) {
	body := fmt.Appendf(nil, `{"model":%q,"temperature":0,"stream":%t,"messages":[{"role":"user","content":"hi"}]}`, benchModel, stream)
	transport := &http.Transport{MaxConnsPerHost: n, MaxIdleConnsPerHost: n}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	firsts, errs := make([]time.Duration, n), make([]error, n)
	var whole atomic.Int64
	var sending sync.WaitGroup
	for i := range n {
		sending.Go(func() {
			var ok bool
			if firsts[i], ok, errs[i] = askEqual(ctx, client, addr, body, stream); ok {
				whole.Add(1)
			}
		})
	}
	sending.Wait()
	figures := &coalesceFigures{whole: whole.Load(), first: firsts[0]}
	for _, first := range firsts {
		figures.first, figures.last = min(figures.first, first), max(figures.last, first)
	}
	return figures, errors.Join(errs...)
}

// askEqual sends one request. It returns after how long the answer began, and whether all of it came.
func askEqual(ctx context.Context, client *http.Client, addr string, body []byte, stream bool) (first time.Duration, whole bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	first = time.Since(began)
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return first, false, err
	}
	if response.StatusCode != http.StatusOK {
		return first, false, fmt.Errorf("status %d: %.200s", response.StatusCode, answer)
	}
	tokens := strings.Count(string(answer), " token")
	ended := !stream || bytes.HasSuffix(answer, []byte("data: [DONE]\n\n"))
	return first, tokens == coalesceTokens && ended, nil
}
