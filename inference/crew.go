package inference

import "sync"

// maxIdle is how many goroutines wait for something to do: enough for what begins and ends at the same time in a worker that
// is busy, and few enough that their stacks, which shrink while they wait, are nothing.
const maxIdle = 64

// crew runs functions, each in a goroutine of its own, and keeps goroutines that are done for those to come: a run goes deep, and
// a stack that has grown for one need not grow for the next. It never makes a function wait. It is safe for concurrent use.
type crew struct {
	next chan func() // whoever idles takes from it
	idle chan struct{}
	all  sync.WaitGroup
}

func newCrew() *crew {
	return &crew{next: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// do starts f.
func (c *crew) do(f func()) {
	select {
	case c.next <- f:
	default:
		c.all.Go(func() { c.work(f) })
	}
}

// work runs f, and what comes next until enough others idle.
func (c *crew) work(f func()) {
	for more := true; more; {
		f()
		f = nil // which holds all of a run
		select {
		case c.idle <- struct{}{}:
			f, more = <-c.next
			<-c.idle
		default:
			return
		}
	}
}

// close ends those that idle and waits for all. Nothing may be started afterwards.
func (c *crew) close() {
	close(c.next)
	c.all.Wait()
}
