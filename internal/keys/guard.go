package keys

import (
	"context"
	"time"

	"github.com/weir-llm/weir/internal/telemetry"
)

const (
	sweepAgain = 500 * time.Millisecond // after a key has ended, for a connection that was being admitted just then, and for closingTime
	sweepEvery = time.Minute            // for what nobody noticed: a key that ended while nobody watched, a lost answer
)

// Gate is where NATS connections come in. The embedded server is one, and the auth callout of a cluster.
type Gate interface {
	// Admit lets decide answer for every connection from now on.
	Admit(decide func(Credentials) (Grant, error))
	// Sweep ends the connections whose users are not live any more.
	Sweep(live func(user string) bool) error
}

// Guard ends the connections of a gate when their keys end, until ctx does.
func (r *Ring) Guard(ctx context.Context, g Gate) {
	ended := make(chan struct{}, 1)
	defer r.OnEnd(func() {
		select {
		case ended <- struct{}{}:
		default:
		}
	})()
	select {
	case <-r.Listed():
	case <-ctx.Done():
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := sweepEvery
		select {
		case <-ctx.Done():
			return
		case <-ended:
			next = sweepAgain
		case <-timer.C:
		}
		if err := g.Sweep(r.Live); err != nil && ctx.Err() == nil {
			r.log.Warn("the NATS connections could not be checked against the API keys; tried again", telemetry.KeyError, err)
			next = sweepAgain
		}
		timer.Stop()
		timer.Reset(next)
	}
}
