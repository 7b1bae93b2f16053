package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	streamInterval = 4 * time.Second // between two tokens of a stream: slow enough that what is measured is holding it
	streamLimitKB  = 30.0
	streamSamples  = 5 // of what is held, a second apart; the highest counts
)

// streamsCommand opens streams at an ingest that is a process of its own and prints what each of them costs it.
func streamsCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("streams", stderr)
	weir := weirFlag(flags)
	n := flags.Int("n", 1000, "open streams")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 1 {
		return fmt.Errorf("%d streams: open at least one", *n)
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	rest, door, err := startApart(ctx, program, dir, *n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.process.Close(), rest.process.Close()) }()
	cost, err := measureStreams(ctx, door, *n, stderr)
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, &door.process.output, &rest.process.output)
	}
	fmt.Fprintf(stdout, "Of each of %d open streams ingest holds %.1f KB: heap %.1f, stacks %.1f. With garbage and the allocator's gaps %.1f KB are resident.\n\n",
		*n, cost.held(), cost.heap, cost.stacks, cost.resident)
	return writeVerdict(stdout, []limit{{
		what: fmt.Sprintf("%d open streams, KB held by each in ingest", *n), want: fmt.Sprintf("at most %.0f", streamLimitKB),
		measured: cost.held(), format: "%.1f", met: cost.held() <= streamLimitKB,
	}}, false)
}

// footprint is the memory of a process in kilobytes. Heap and stacks are what it holds: what is left right after a
// collection. Resident is what the system counts, which also has the garbage of the moment before (the collector lets it
// grow to as much again, unless GOGC or GOMEMLIMIT say otherwise) and gaps between objects.
type footprint struct{ heap, stacks, resident float64 }

func (f footprint) held() float64 { return f.heap + f.stacks }

// footprint collects the target's garbage and reads what is left.
func (t *apart) footprint(ctx context.Context) (f footprint, err error) {
	memory, err := residentBytes(t.process.pid()) // before the collection, which gives some of it back
	if err != nil {
		return f, err
	}
	for range 2 { // what is only pooled outlasts one collection
		if _, err := t.get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return f, err
		}
	}
	metrics, err := t.get(ctx, "/metrics")
	if err != nil {
		return f, err
	}
	f.resident = float64(memory) / 1000
	for name, to := range map[string]*float64{"go_memstats_heap_alloc_bytes": &f.heap, "go_memstats_stack_inuse_bytes": &f.stacks} {
		_, rest, _ := strings.Cut(metrics, "\n"+name+" ")
		value, _, _ := strings.Cut(rest, "\n")
		bytes, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return f, fmt.Errorf("read %s: %w", name, err)
		}
		*to = bytes / 1000
	}
	return f, nil
}

// apart is an ingest with an operator's address.
type apart struct {
	*target
	admin string
}

func (t *apart) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.admin+path, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return string(body), err
}

// startApart starts everything in one process, and an ingest in another one.
func startApart(ctx context.Context, program, dir string, streams int) (rest *target, door *apart, err error) {
	var addrs [4]string
	for i := range addrs {
		if addrs[i], err = freeAddr(); err != nil {
			return nil, nil, err
		}
	}
	file := filepath.Join(dir, "weir.yaml")
	config := fmt.Sprintf("models:\n  %s:\n    backends:\n      - {name: echo, protocol: echo, max_in_flight: %d}\n    timeouts: {first_token: 10m, idle: 10m}\ndurability: process\n",
		benchModel, streams+64)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, nil, err
	}
	common := []string{"--config", file, "--log-level", "warn", "--json"}
	rest, err = startTarget(ctx, "serve", addrs[0], "/readyz", program, append(common, "serve", "--admin", "off", "--data-dir", filepath.Join(dir, "data"), "--http", addrs[0], "--nats", addrs[1])...)
	if err != nil {
		return nil, nil, err
	}
	t, err := startTarget(ctx, "ingest", addrs[2], "/readyz", program, append(common, "ingest", "--admin", addrs[3], "--data-dir", filepath.Join(dir, "ingest"), "--http", addrs[2], "--nats", "nats://"+addrs[1])...)
	if err != nil {
		return nil, nil, errors.Join(err, rest.process.Close())
	}
	return rest, &apart{target: t, admin: addrs[3]}, nil
}

// measureStreams returns by how much the memory grew for each stream.
func measureStreams(ctx context.Context, door *apart, n int, progress io.Writer) (footprint, error) {
	// What the first requests set up once is not of the streams.
	if err := openStreams(ctx, door.addr, 16, 1, 0).close(); err != nil {
		return footprint{}, err
	}
	if _, err := settle(ctx, door.process.pid(), 5*time.Second); err != nil {
		return footprint{}, err
	}
	base, err := door.footprint(ctx)
	if err != nil {
		return footprint{}, err
	}
	streams := openStreams(ctx, door.addr, n, 1<<16, streamInterval)
	fmt.Fprintf(progress, "%d streams have begun\n", n)
	most, err := door.highest(ctx)
	each := func(with, without float64) float64 { return (with - without) / float64(n) }
	return footprint{heap: each(most.heap, base.heap), stacks: each(most.stacks, base.stacks), resident: each(most.resident, base.resident)},
		errors.Join(err, streams.close())
}

// highest is the footprint of those sampled in which most was held.
func (t *apart) highest(ctx context.Context) (most footprint, err error) {
	for range streamSamples {
		if !waitUntil(ctx, time.Now().Add(time.Second)) {
			return most, ctx.Err()
		}
		now, err := t.footprint(ctx)
		if err != nil {
			return most, err
		}
		resident := max(most.resident, now.resident)
		if now.held() > most.held() {
			most = now
		}
		most.resident = resident
	}
	return most, nil
}

// openedStreams are streams that are read until they are closed.
type openedStreams struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

// openStreams returns when each stream has shown two events, or its end, or has failed.
func openStreams(ctx context.Context, addr string, n, tokens int, interval time.Duration) *openedStreams {
	ctx, stop := context.WithCancel(ctx)
	s := &openedStreams{stop: stop}
	var begun sync.WaitGroup
	for i := range n {
		begun.Add(1)
		s.running.Go(func() {
			shown := sync.OnceFunc(begun.Done)
			defer shown()
			// Spread over an interval, so that streams do not all have their token at once.
			if !waitUntil(ctx, time.Now().Add(interval*time.Duration(i)/time.Duration(n))) {
				return
			}
			if err := readStream(ctx, addr, tokens, interval, shown); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.errs = append(s.errs, err)
				s.mu.Unlock()
			}
		})
	}
	begun.Wait()
	return s
}

// close ends the streams and returns what went wrong before.
func (s *openedStreams) close() error {
	s.mu.Lock()
	err := firstFailure(s.errs)
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
	return err
}

// readStream asks for a stream and reads it to its end. Once it has shown two events it calls shown.
func readStream(ctx context.Context, addr string, tokens int, interval time.Duration, shown func()) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"stream":true,"x_echo":{"tokens":%d,"interval_ms":%d}}`,
		benchModel, strings.Repeat("word ", 400), tokens, interval.Milliseconds())
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", completionsPath, addr, len(body), body); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(conn, 4<<10)
	for events := 0; ; {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return fmt.Errorf("a stream broke after %d events: %w", events, err)
		case bytes.HasPrefix(line, []byte("HTTP/1.1 ")) && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")):
			return fmt.Errorf("a stream was refused: %s", bytes.TrimSpace(line))
		case bytes.HasPrefix(line, []byte("data: [DONE]")):
			return nil
		case bytes.HasPrefix(line, []byte(`data: {"error"`)):
			return fmt.Errorf("a stream failed: %.300s", line)
		case bytes.HasPrefix(line, []byte("data: ")):
			if events++; events == 2 {
				shown()
			}
		}
	}
}
