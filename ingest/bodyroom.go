package ingest

import (
	"io"
	"sync/atomic"

	"github.com/weir-llm/weir/schemas"
)

// freeBody is how much of each body is not weighed: so much room is there for every request that has a place.
const freeBody = firstBuffer

// bodyRoom bounds the bytes of request bodies that are held at once: what was read and is not yet stored on the bus.
// Without it as many large bodies as there are places would not fit into memory. It never waits (docs/adr/0012).
type bodyRoom struct {
	max   int64
	taken atomic.Int64
}

// hold counts more bytes of the exchange's body, or refuses them.
func (x *exchange) hold(n int64) error {
	room := &x.s.bodies
	if room.taken.Add(n) > room.max {
		room.taken.Add(-n)
		return schemas.Errorf(schemas.CodeOverloaded, "%d bytes of request bodies are being read already. Please try again in 1s.", room.max).WithRetryAfter(overloadedRetry)
	}
	x.held += n
	return nil
}

// letGo gives the room back. It may be called again.
func (x *exchange) letGo() {
	if x.held > 0 {
		x.s.bodies.taken.Add(-x.held)
		x.held = 0
	}
}

// weighed reads a body and takes room for what comes, so that one which is announced and never sent takes none.
type weighed struct {
	io.Reader
	x    *exchange
	free int64
}

func (c *weighed) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.free -= int64(n); c.free < 0 {
		if full := c.x.hold(-c.free); full != nil {
			return n, full
		}
		c.free = 0
	}
	return n, err
}
