package router

import "time"

// streamClock estimates the clock of the server that stamps requests, so that a deadline counted from a stamp is not
// judged by a local clock that is off. A stamp is never from the future, so the difference between the local time of
// reading and the stamp is at least the skew; it is the skew when the message came just now, while a fetch was waiting.
// It takes the clocks as equal until it knows better. Local times must have a monotonic reading, by which alone they are
// told from the base, so that nobody who sets the local clock grants or takes anything.
type streamClock struct {
	base time.Time     // local, at the start
	skew time.Duration // local minus stream
}

// observe learns from a message that was read at local time.
func (c *streamClock) observe(local, stamp time.Time, fresh bool) {
	if bound := c.steady(local).Sub(stamp); fresh || bound < c.skew {
		c.skew = bound
	}
}

// at is the stream's time at a local time.
func (c *streamClock) at(local time.Time) time.Time { return c.steady(local).Add(-c.skew) }

// steady is what a local clock would say that nobody has set since the start.
func (c *streamClock) steady(local time.Time) time.Time {
	return c.base.Round(0).Add(local.Sub(c.base))
}
