package router

import "time"

// streamClock estimates the clock of the server that stamps requests, so that a deadline counted from a stamp is not
// judged by a local clock that is off. A stamp is never from the future, so the difference between the local time of
// reading and the stamp is at least the skew; it is the skew when the message came just now, while a fetch was waiting.
// The zero value takes the clocks as equal until it knows better.
type streamClock struct {
	skew time.Duration // local minus stream
}

// observe learns from a message that was read at local time.
func (c *streamClock) observe(local, stamp time.Time, fresh bool) {
	if bound := local.Round(0).Sub(stamp); fresh || bound < c.skew {
		c.skew = bound
	}
}

// at is the stream's time at a local time.
func (c *streamClock) at(local time.Time) time.Time { return local.Round(0).Add(-c.skew) }
