package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// scenario is one kind of load that every target gets in every round.
type scenario struct {
	name string
	load load
}

// scenarios are those of the design; the quick ones only show that everything works.
func scenarios(quick, raw bool) []scenario {
	warmup, window, streams := 300*time.Millisecond, time.Second, 200
	if quick {
		warmup, window, streams = 100*time.Millisecond, 300*time.Millisecond, 20
	}
	return []scenario{
		{"streamed", load{Raw: raw, Clients: 32, Stream: true, Tokens: 64, Warmup: warmup, Window: window}},
		{"unary", load{Raw: raw, Clients: 32, Tokens: 64, Warmup: warmup, Window: window}},
		{"single", load{Raw: raw, Clients: 1, Stream: true, Tokens: 64, Warmup: warmup, Window: window}},
		{"paced", load{Raw: raw, Clients: streams, Stream: true, Tokens: 64, Interval: 20 * time.Millisecond, Warmup: 2 * warmup, Window: window}},
	}
}

// metrics of a round, by name.
const (
	answersPerSecond = "answers/s"
	tokensPerSecond  = "tokens/s"
	firstTokenP50    = "first token p50"
	firstTokenP99    = "first token p99"
	chunkDelayP50    = "chunk delay p50"
	chunkDelayP99    = "chunk delay p99"
	cpuPerToken      = "cpu per token"
	settling         = "settling"
	resident         = "resident"
)

// figures holds each round's value of a metric, by target, scenario and metric.
type figures map[[3]string][]float64

func (f figures) add(target, scenario, metric string, value float64) {
	key := [3]string{target, scenario, metric}
	f[key] = append(f[key], value)
}

func (f figures) median(target, scenario, metric string) float64 {
	return median(f[[3]string{target, scenario, metric}])
}

// measure runs the rounds. The targets take turns within each scenario, in an order that moves on by one every round.
func measure(ctx context.Context, targets []*target, list []scenario, rounds int, progress io.Writer) (figures, error) {
	all := figures{}
	for round := range rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, rounds)
		for _, s := range list {
			for i := range targets {
				t := targets[(i+round)%len(targets)]
				if err := all.measureOne(ctx, t, s); err != nil {
					return nil, fmt.Errorf("%s, %s: %w\n%s", t.name, s.name, err, &t.process.output)
				}
			}
		}
	}
	return all, nil
}

func (f figures) measureOne(ctx context.Context, t *target, s scenario) error {
	before, err := cpuTime(t.process.pid())
	if err != nil {
		return err
	}
	counted, err := s.load.run(ctx, t.addr)
	if err != nil {
		return err
	}
	settled, err := settle(ctx, t.process.pid(), 10*time.Second)
	if err != nil {
		return err
	}
	after, err := cpuTime(t.process.pid())
	if err != nil {
		return err
	}
	memory, err := residentBytes(t.process.pid())
	if err != nil {
		return err
	}
	for metric, value := range map[string]float64{
		answersPerSecond: float64(counted.Answers) / s.load.Window.Seconds(),
		tokensPerSecond:  float64(counted.Tokens) / s.load.Window.Seconds(),
		firstTokenP50:    milliseconds(percentile(counted.FirstToken, 50)),
		firstTokenP99:    milliseconds(percentile(counted.FirstToken, 99)),
		chunkDelayP50:    milliseconds(percentile(counted.ChunkDelay, 50)),
		chunkDelayP99:    milliseconds(percentile(counted.ChunkDelay, 99)),
		cpuPerToken:      float64((after - before).Microseconds()) / float64(max(counted.AllTokens, 1)),
		settling:         milliseconds(settled),
		resident:         megabytes(memory),
	} {
		f.add(t.name, s.name, metric, value)
	}
	return nil
}

func megabytes(b int64) float64 { return float64(b) / 1e6 }
