package inference_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/faulty"
)

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkAddedPerToken has an answer of 2,000 tokens as fast as the model server sends it, which is in this process: read
// by a plain HTTP client, and run by a worker whose frames are stored and read. The difference is what Weir adds, the
// store included: added-µs/token.
func BenchmarkAddedPerToken(b *testing.B) {
	const tokens = 2000
	p := setup(b)
	server := faulty.New(b, faulty.OpenAI(), func(c *faulty.Call) {
		c.Send(c.Dialect.Answer(c.Dialect.Stop, strings.Split(strings.Repeat("token ", tokens), " ")[:tokens]...)...)
	})
	p.models(map[string]inference.Model{"m": {Backends: p.behind(4, server)}})
	measure := func(once func()) (perToken float64) {
		once() // connections are made, buffers have grown
		before, n := cpu(b), 0
		for began := time.Now(); time.Since(began) < time.Second || n < 5; n++ {
			once()
		}
		return float64((cpu(b) - before).Microseconds()) / float64(n*tokens)
	}
	direct := measure(func() {
		reply, err := http.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(sampled))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, reply.Body)
		_ = reply.Body.Close()
	})
	asked := 0
	through := measure(func() {
		asked++
		if got := p.read(p.send(fmt.Sprintf("r%d", asked), sampled)); got.code() != "" {
			b.Fatal(got.code())
		}
	})
	for b.Loop() { // it has been measured: a benchmark counts time, and this is CPU
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(direct, "direct-µs/token")
	b.ReportMetric(through, "through-µs/token")
	b.ReportMetric(through-direct, "added-µs/token")
}
