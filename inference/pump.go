package inference

import (
	"fmt"
	"runtime/debug"
)

// pump runs calls in a goroutine of its own, in step with whoever takes what they say: an event is valid until next is
// called.
type pump struct {
	said     chan utterance // closed at the end
	onward   chan struct{}  // closed when no more is wanted
	panicked any            // what ended the calls, instead of an end; set before said is closed
}

type utterance struct {
	event Event
	err   error
}

func newPump(c *crew, events said) *pump {
	p := &pump{said: make(chan utterance), onward: make(chan struct{})}
	c.do(func() { p.run(events) })
	return p
}

func (p *pump) run(events said) {
	defer close(p.said)
	defer func() {
		if v := recover(); v != nil {
			p.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
		}
	}()
	for event, err := range events {
		p.said <- utterance{event, err}
		if _, ok := <-p.onward; !ok {
			return
		}
	}
}

// next lets the calls go on after an event.
func (p *pump) next() { p.onward <- struct{}{} }

// close ends the calls and waits for that, so that whoever is still in one must have stopped it. What made them panic
// panics here.
func (p *pump) close() {
	close(p.onward)
	for range p.said {
	}
	if p.panicked != nil {
		panic(p.panicked)
	}
}
