package bus_test

import (
	"crypto/rand"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// token is about what a model sends for one.
var token = `{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + strings.Repeat("t", 140) + `"}}]}`

// tokens makes delta frames of so many events, one after the other.
type tokens struct{ frame *schemas.Frame }

func newTokens(count int) tokens {
	return tokens{delta("a", 0, strings.Split(strings.Repeat(token+"\n", count-1)+token, "\n")...)}
}

func (t tokens) next() *schemas.Frame {
	t.frame.Index += uint64(t.frame.Count)
	return t.frame
}

// links are the ways to reach the server, whose allocations are counted too.
func links(b *testing.B, run func(b *testing.B, link *bus.Bus)) {
	server := bustest.Server(b)
	near := bustest.Connect(b, server, bus.Config{})
	b.Run("pipe", func(b *testing.B) { run(b, near) })
	far := connect(b, server, bus.Config{URL: server.ClientURL()})
	b.Run("loopback", func(b *testing.B) { run(b, far) })
}

func BenchmarkAppend(b *testing.B) {
	links(b, func(b *testing.B, link *bus.Bus) {
		for _, count := range []int{1, 16} {
			b.Run(fmt.Sprint("events=", count), func(b *testing.B) {
				id := schemas.Identity{Tenant: "acme", Request: "append-" + rand.Text()} // it may run more than once
				frames := newTokens(count)
				ctx, last := b.Context(), uint64(0)
				b.ReportAllocs()
				for b.Loop() {
					sequence, err := link.Append(ctx, id, last, frames.next())
					if err != nil {
						b.Fatal(err)
					}
					last = sequence
				}
			})
		}
	})
}

// BenchmarkReadLive is a frame's way from its writer to a reader that waits for it.
func BenchmarkReadLive(b *testing.B) {
	links(b, func(b *testing.B, link *bus.Bus) {
		id := schemas.Identity{Tenant: "acme", Request: strings.ReplaceAll(b.Name(), "/", "-")}
		reader, err := link.Open(b.Context(), id, bus.ReadOptions{Fresh: true})
		if err != nil {
			b.Fatal(err)
		}
		defer reader.Close()
		if err := link.Conn().Flush(); err != nil { // frames go by another connection, and the first must not come before its reader
			b.Fatal(err)
		}
		next, stop := iter.Pull2(reader.Frames(b.Context()))
		defer stop()
		frames, last := newTokens(1), uint64(0)
		b.ReportAllocs()
		for b.Loop() {
			frame := frames.next()
			if last, err = link.Append(b.Context(), id, last, frame); err != nil {
				b.Fatal(err)
			}
			if got, err, _ := next(); err != nil || got.Index != frame.Index {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkAcceptPullAck is a request's way to the router.
func BenchmarkAcceptPullAck(b *testing.B) {
	links(b, func(b *testing.B, link *bus.Bus) {
		puller := link.Requests(partitionOf(b, link, "acme"))
		defer puller.Close()
		r := request("")
		r.Body = []byte(`{"model":"echo","messages":[{"role":"user","content":"` + strings.Repeat("q", 400) + `"}]}`)
		n := 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			r.Request = fmt.Sprint(strings.ReplaceAll(b.Name(), "/", "-"), "-", n)
			if _, err := link.Accept(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			batch, err := puller.Fetch(b.Context(), 64)
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range batch {
				d.Settle(bus.Ack)
			}
		}
	})
}
