package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	weirclient "github.com/weir-llm/weir/client"
)

// hitLoad is one way to ask for an answer that is in the cache.
type hitLoad struct {
	name    string
	nats    bool // by the Go client on one connection, instead of one lean HTTP connection for each client
	stream  bool
	clients int
}

var hitLoads = []hitLoad{
	{"1 client, NATS, streamed", true, true, 1},
	{"1 client, NATS, unary", true, false, 1},
	{"1 client, HTTP, streamed", false, true, 1},
	{"32 clients, HTTP, unary", false, false, 32},
	{"32 clients, HTTP, streamed", false, true, 32},
	{"32 clients, NATS, unary", true, false, 32},
}

// The loads that the limits are about.
const judgedFirst, judgedRate = "1 client, NATS, streamed", "32 clients, HTTP, unary"

// hitTokens is the length of the answers.
const hitTokens = 64

// metrics of hits, beside those of all answers.
const (
	cpuPerHit       = "cpu per hit"
	generatorPerHit = "cpu of the generator per hit"
	hitsPerCPU      = "hits per cpu second"
)

// benchHits measures hits with each durability, in turns, and makes sure that they cost no work item.
func benchHits(ctx context.Context, program, dir string, rounds int, window time.Duration, stdout, stderr io.Writer) (_ []limit, err error) {
	mock, err := startMock(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, mock.process.Close()) }()
	var weirs []*cachingWeir
	defer func() {
		for _, w := range weirs {
			err = errors.Join(err, w.process.Close())
		}
	}()
	for _, durability := range []string{"process", "power"} {
		w, err := startCaching(ctx, program, filepath.Join(dir, durability), mock.addr, durability, "both")
		if err != nil {
			return nil, err
		}
		weirs = append(weirs, w)
		for _, l := range hitLoads[:2] { // fills the cache; both forms have one entry
			if _, err := w.hits(ctx, l, 0); err != nil {
				return nil, fmt.Errorf("%w\n%s", err, &w.process.output)
			}
		}
	}
	all := figures{}
	for round := range rounds {
		fmt.Fprintf(stderr, "hits: round %d of %d\n", round+1, rounds)
		for _, l := range hitLoads {
			for i := range weirs {
				if err := all.measureHits(ctx, weirs[(i+round)%len(weirs)], l, window); err != nil {
					return nil, err
				}
			}
		}
	}
	return writeHits(stdout, all, rounds), nil
}

func (f figures) measureHits(ctx context.Context, w *cachingWeir, l hitLoad, window time.Duration) error {
	dispatched, err := w.metric(ctx, "weir_router_dispatched_total")
	if err != nil {
		return err
	}
	before, err := cpuTime(w.process.pid())
	if err != nil {
		return err
	}
	own, err := ownCPU()
	if err != nil {
		return err
	}
	counted, err := w.hits(ctx, l, window)
	if err != nil {
		return fmt.Errorf("%s, %s: %w\n%s", w.name, l.name, err, &w.process.output)
	}
	generator, err := ownCPU()
	if err != nil {
		return err
	}
	if _, err := settle(ctx, w.process.pid(), 10*time.Second); err != nil {
		return err
	}
	after, err := cpuTime(w.process.pid())
	if err != nil {
		return err
	}
	if now, err := w.metric(ctx, "weir_router_dispatched_total"); err != nil || now != dispatched {
		return errors.Join(err, fmt.Errorf("%s, %s: hits cost %.0f work items", w.name, l.name, now-dispatched))
	}
	f.add(w.name, l.name, answersPerSecond, float64(counted.Answers)/window.Seconds())
	f.add(w.name, l.name, firstTokenP50, milliseconds(percentile(counted.FirstToken, 50)))
	f.add(w.name, l.name, firstTokenP99, milliseconds(percentile(counted.FirstToken, 99)))
	hits := float64(max(counted.AllTokens/hitTokens, 1)) // those outside of the window too
	f.add(w.name, l.name, cpuPerHit, float64((after-before).Microseconds())/hits)
	f.add(w.name, l.name, generatorPerHit, float64((generator-own).Microseconds())/hits)
	f.add(w.name, l.name, hitsPerCPU, hits/max((after-before).Seconds(), tick.Seconds()))
	return nil
}

// hitWarmup is what is asked before a window begins.
const hitWarmup = 300 * time.Millisecond

// hits asks again and again, each client at least once, and counts in a window.
func (w *cachingWeir) hits(ctx context.Context, l hitLoad, window time.Duration) (*tally, error) {
	var bus *weirclient.Client
	if l.nats {
		var err error
		if bus, err = weirclient.Connect(ctx, weirclient.Config{URL: w.nats}); err != nil {
			return nil, err
		}
		defer func() { _ = bus.Close() }()
	}
	body := cachedBody("Count to a number.", l.stream, dials{Tokens: hitTokens})
	begin := time.Now()
	if window > 0 {
		begin = begin.Add(hitWarmup)
	}
	counting := span{begin, begin.Add(window)}
	tallies := make([]tally, l.clients)
	var running sync.WaitGroup
	for i := range tallies {
		running.Go(func() {
			a := asker{body: body, window: counting, tally: &tallies[i]}
			var err error
			if l.nats {
				err = a.overNATS(ctx, bus)
			} else {
				err = a.overHTTP(ctx, w.addr)
			}
			if err != nil {
				a.tally.Failed = append(a.tally.Failed, err)
			}
		})
	}
	running.Wait()
	sum := &tally{}
	for i := range tallies {
		sum.add(&tallies[i])
	}
	return sum, errors.Join(ctx.Err(), firstFailure(sum.Failed))
}

// asker is one client; the goroutine of its load owns it.
type asker struct {
	body   []byte
	window span
	tally  *tally
	words  int // of the answer under way
	begun  time.Time
}

func (a *asker) start() { a.words, a.begun = 0, time.Now() }

// event takes an event of an answer, of which the first with text counts.
func (a *asker) event(data []byte) {
	words := bytes.Count(data, []byte("token")) - bytes.Count(data, []byte("_tokens")) // those of usage
	if a.words == 0 && words > 0 && a.window.holds(a.begun) {
		a.tally.FirstToken = append(a.tally.FirstToken, time.Since(a.begun))
	}
	a.words += words
}

// finish counts an answer that is whole. A replay may cut a word in two, of which nothing is counted here.
func (a *asker) finish() error {
	if a.words < hitTokens/2 || a.words > hitTokens {
		return fmt.Errorf("an answer has %d of %d words", a.words, hitTokens)
	}
	a.tally.AllTokens += hitTokens
	if a.window.holds(time.Now()) {
		a.tally.Answers++
	}
	return nil
}

func (a *asker) overHTTP(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for first := true; ctx.Err() == nil && (first || time.Now().Before(a.window.to)); first = false {
		a.start()
		if err := conn.post(a.body, a.event); err != nil {
			return err
		}
		if err := a.finish(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (a *asker) overNATS(ctx context.Context, bus *weirclient.Client) error {
	for first := true; first || time.Now().Before(a.window.to); first = false {
		a.start()
		for event, err := range bus.Stream(ctx, weirclient.Request{Body: a.body}) {
			if err != nil {
				return err
			}
			a.event(event.Data)
		}
		if err := a.finish(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func writeHits(w io.Writer, all figures, rounds int) []limit {
	fmt.Fprintf(w, "Hits of one answer of %d tokens, medians over %d rounds, on %d cores that Weir shares with the load generator. HTTP clients are lean, one connection each; NATS clients share one connection of the Go client. Weir's CPU is that of all its stages and of the NATS server in it, until it is quiet again.\n\n",
		hitTokens, rounds, runtime.NumCPU())
	fmt.Fprint(w, "| load | | process | power |\n|---|---|---|---|\n")
	for _, l := range hitLoads {
		for _, m := range []struct{ metric, label, format string }{
			{answersPerSecond, "hits/s", "%.0f"}, {firstTokenP50, "first token p50, ms", "%.2f"}, {firstTokenP99, "first token p99, ms", "%.2f"},
			{cpuPerHit, "CPU µs per hit, Weir", "%.0f"}, {generatorPerHit, "CPU µs per hit, load generator", "%.0f"}, {hitsPerCPU, "hits per CPU second of Weir", "%.0f"},
		} {
			format := strings.ReplaceAll("| %s | %s | # | # |\n", "#", m.format)
			fmt.Fprintf(w, format, l.name, m.label, all.median("process", l.name, m.metric), all.median("power", l.name, m.metric))
		}
	}
	fmt.Fprintln(w)
	first, rate := all.median("process", judgedFirst, firstTokenP50), all.median("process", judgedRate, answersPerSecond)
	return []limit{
		{"a hit's first token p50, " + judgedFirst + ", ms", fmt.Sprintf("at most %.0f", hitFirstTokenMS), first, "%.2f", first <= hitFirstTokenMS},
		{"hits/s, " + judgedRate, fmt.Sprintf("at least %.0f", hitsPerSecond), rate, "%.0f", rate >= hitsPerSecond},
	}
}
