package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	coalesceTokens = 64
	coalesceStep   = 5 * time.Millisecond
	coalesceLook   = 100 * time.Millisecond
	coalesceWait   = 50 * time.Second // for all to be accepted: less than a model has for its first token
)

// heldModel is the mock upstream, counted, which says nothing before it is let: a request that is accepted when the answer of its
// equals has ended is not one at once with them, and rightly has a run of its own.
type heldModel struct {
	mock  http.Handler
	calls atomic.Int64
	mu    sync.Mutex
	gate  chan struct{} // closed when it may speak
}

func (m *heldModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		m.calls.Add(1)
		m.mu.Lock()
		gate := m.gate
		m.mu.Unlock()
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	m.mock.ServeHTTP(w, r)
}

// hold makes the model silent, and forgets its calls, until speak is called.
func (m *heldModel) hold() (speak func()) {
	gate := make(chan struct{})
	m.mu.Lock()
	m.gate = gate
	m.mu.Unlock()
	m.calls.Store(0)
	return sync.OnceFunc(func() { close(gate) })
}

// coalesceFigures are of requests that are equal and sent at once.
type coalesceFigures struct {
	calls, whole int64         // of the model; answers that were all there
	accepted     time.Duration // until all requests were, and the model began to speak
	last         time.Duration // from then until the last answer began
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
	model := &heldModel{mock: newMock(dials{Tokens: coalesceTokens, IntervalUS: coalesceStep.Microseconds()})}
	upstream, stop, err := serveHere(model)
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
		figures, err := sendEqual(ctx, target, model, *n, kind.stream)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", kind.name, err, &target.process.output)
		}
		fmt.Fprintf(stdout, "%d equal %s requests: %d calls of the model, %d whole answers; all accepted after %d ms, and each with its answer's beginning within %d ms of the model's\n",
			*n, kind.name, figures.calls, figures.whole, figures.accepted.Milliseconds(), figures.last.Milliseconds())
		limits = append(limits,
			limit{what: kind.name + ", calls of the model", want: "1", measured: float64(figures.calls), format: "%.0f", met: figures.calls == 1},
			limit{what: kind.name + ", whole answers", want: fmt.Sprint(*n), measured: float64(figures.whole), format: "%.0f", met: figures.whole == int64(*n)})
	}
	return writeVerdict(stdout, limits, false)
}

// startCoalescing starts `weir serve` with nothing set but that requests share runs.
func startCoalescing(ctx context.Context, program, dir, upstream, durability string) (*apart, error) {
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
	t, err := startTarget(ctx, "coalesce", addrs[0], "/readyz", program, "serve", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--http", addrs[0], "--nats", addrs[1], "--admin", addrs[2], "--log-level", "warn", "--json")
	return &apart{target: t, admin: addrs[2]}, err
}

// sendEqual sends n equal requests, each on a connection of its own, lets the model speak when all are accepted, and reads all
// answers.
func sendEqual(ctx context.Context, door *apart, model *heldModel, n int, stream bool) (*coalesceFigures, error) {
	body := fmt.Appendf(nil, `{"model":%q,"temperature":0,"stream":%t,"messages":[{"role":"user","content":"hi"}]}`, benchModel, stream)
	transport := &http.Transport{MaxConnsPerHost: n, MaxIdleConnsPerHost: n}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * coalesceWait}
	speak := model.hold()
	defer speak()
	firsts, errs := make([]time.Time, n), make([]error, n+1)
	var whole atomic.Int64
	var sending sync.WaitGroup
	began := time.Now()
	for i := range n {
		sending.Go(func() {
			var ok bool
			if firsts[i], ok, errs[i] = askEqual(ctx, client, door.addr, body, stream); ok {
				whole.Add(1)
			}
		})
	}
	errs[n] = awaitAccepted(ctx, door, model, n)
	spoke := time.Now()
	speak()
	sending.Wait()
	figures := &coalesceFigures{whole: whole.Load(), calls: model.calls.Load(), accepted: spoke.Sub(began)}
	for _, first := range firsts {
		figures.last = max(figures.last, first.Sub(spoke))
	}
	return figures, errors.Join(errs...)
}

// awaitAccepted waits until each of n requests is with the model or follows one that is.
func awaitAccepted(ctx context.Context, door *apart, model *heldModel, n int) error {
	ctx, cancel := context.WithTimeout(ctx, coalesceWait)
	defer cancel()
	for {
		page, err := door.get(ctx, "/metrics")
		if err != nil {
			return err
		}
		followers := 0
		for line := range strings.Lines(page) {
			if value, ok := strings.CutPrefix(line, "weir_router_followers "); ok {
				if followers, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
					return err
				}
			}
		}
		if followers+int(model.calls.Load()) >= n {
			return nil
		}
		select {
		case <-time.After(coalesceLook):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d requests follow, and the model has %d calls: %w", followers, n, model.calls.Load(), context.Cause(ctx))
		}
	}
}

// askEqual sends one request. It returns after how long the answer began, and whether all of it came.
func askEqual(ctx context.Context, client *http.Client, addr string, body []byte, stream bool) (first time.Time, whole bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return first, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return first, false, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	first = time.Now()
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
