package balance

import (
	"fmt"
	"testing"
)

// BenchmarkCall is all that balancing, breaker and limiter cost a request, together: pick, first token, end. The number is
// µs/request.
func BenchmarkCall(b *testing.B) {
	for _, members := range []int{1, 4, 16} {
		for _, full := range []bool{false, true} {
			b.Run(fmt.Sprintf("members=%d/everything=%t", members, full), func(b *testing.B) {
				c := Config{}
				for i := range members {
					c.Members = append(c.Members, Member{Name: fmt.Sprint("b", i), MaxInFlight: 64})
				}
				if full {
					c.Affinity.On, c.Adaptive = true, &Adaptive{}
				}
				p, err := New(c)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				prefix := uint64(0)
				for b.Loop() {
					prefix++
					call, err := p.Pick(Ask{Tokens: 800, Prompt: 300, Prefix: prefix})
					if err != nil {
						b.Fatal(err)
					}
					call.FirstToken()
					call.Done(Outcome{Result: Success})
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "µs/request")
			})
		}
	}
}
