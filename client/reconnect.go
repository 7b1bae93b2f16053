package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/weir-llm/weir/schemas"
)

// Pauses between two tries to come back.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
)

// broken says that a connection ended before the answer did, or could not be made: the same again may work.
type broken struct {
	cause error
	pause time.Duration // the least time until the next try, as the server asked for
}

func (b *broken) Error() string { return b.cause.Error() }
func (b *broken) Unwrap() error { return b.cause }

// later is a refusal that holds only for now as a broken connection, and any other error as it is. It is for what may be
// asked twice.
func later(err error) error {
	e, refused := errors.AsType[*schemas.Error](err)
	if !refused || !passing(e.Code) || closed(err) {
		return err
	}
	return &broken{cause: err, pause: e.RetryAfter}
}

// passing reports whether a door refuses only for now.
func passing(code schemas.Code) bool {
	return code == schemas.CodeUnavailable || code == schemas.CodeOverloaded || code == schemas.CodeRateLimit || code == schemas.CodeSlowDown
}

// sending is what is known of a request that is sent, perhaps more than once. A try that broke may have left the request
// with a door: from then on it may run, and a door that refuses it for now says nothing about that.
type sending struct{ broke bool }

// tried is what the error of a try means.
func (s *sending) tried(err error) error {
	if s.broke {
		return later(err)
	}
	_, s.broke = errors.AsType[*broken](err)
	return err
}

// errCut is the cause of a stream that just stopped.
var errCut = errors.New("the connection ended before the answer did")

// follower takes a stream up again after its last event for as long as that leads anywhere.
type follower struct {
	limit   time.Duration // without progress
	silence time.Duration // after which a connection counts as cut
	log     *slog.Logger
}

func (c *Config) follower() follower {
	return follower{limit: c.ReconnectFor, silence: silence, log: c.Logger}
}

// connection reads a stream from the event next on until its end, which is nil, or until an error. It calls hear at each
// sign of life, and stops when emit returns false.
type connection func(ctx context.Context, next uint64, hear func(), emit func(Event) bool) error

// follow yields the events of connection after connection, without a gap or a duplicate. It ends after the last event, or
// with one error that is not broken, or that is broken and stayed so.
func (f follower) follow(ctx context.Context, from uint64, connect connection) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		p := position{next: from, yield: yield, tries: f.backoff()}
		for {
			p.began = time.Now()
			err := connect(ctx, p.next, p.hear, p.emit)
			if p.left || err == nil {
				return
			}
			p.failed()
			if err = f.pause(ctx, p.tries, err); err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// position is how far a stream is.
type position struct {
	next  uint64
	yield func(Event, error) bool
	left  bool // the consumer has enough
	tries *backoff.ExponentialBackOff

	began, heard time.Time // of the connection: its beginning, and its last sign of life
	failing      bool      // there was no progress since a failure
}

func (p *position) hear() { p.heard = time.Now() }

// emit yields an event that follows the last one.
func (p *position) emit(event Event) bool {
	switch {
	case event.Cursor.Index < p.next:
		return true // seen on an earlier connection
	case event.Cursor.Index > p.next:
		return false
	}
	p.next++
	p.failing = false
	p.left = !p.yield(event, nil)
	return !p.left
}

// failed counts the time to give up from the first failure after progress. A connection that lived for a while is progress
// too: an answer may be long in coming.
func (p *position) failed() {
	if !p.failing || p.heard.Sub(p.began) > longPause {
		p.tries.Reset()
	}
	p.failing = true
}

// retry calls do until its error is not a broken connection, or stayed one for too long.
func (f follower) retry(ctx context.Context, do func() error) error {
	tries := f.backoff()
	for {
		err := do()
		if err == nil {
			return nil
		}
		if err = f.pause(ctx, tries, err); err != nil {
			return err
		}
	}
}

func (f follower) backoff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstPause), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(longPause), backoff.WithMaxElapsedTime(f.limit))
}

// pause waits for the next try. It returns the error to end with when there is none.
func (f follower) pause(ctx context.Context, tries *backoff.ExponentialBackOff, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cut, ok := errors.AsType[*broken](err)
	if !ok {
		return err
	}
	wait := tries.NextBackOff()
	if wait == backoff.Stop || tries.GetElapsedTime()+cut.pause > f.limit {
		return gaveUp(cut.cause)
	}
	f.log.LogAttrs(ctx, slog.LevelDebug, "a connection broke and is made again", slog.Any("error", cut.cause), slog.Duration("in", wait))
	return sleep(ctx, max(wait, cut.pause))
}

// gaveUp is a refusal of the server's as it is, and any other failure as an unavailable service.
func gaveUp(cause error) error {
	if e, ok := errors.AsType[*schemas.Error](cause); ok {
		return e
	}
	return schemas.Errorf(schemas.CodeUnavailable, "no server could be reached; the request goes on if it was accepted: resume it, or send it again with the same id").
		WithCause(fmt.Errorf("connect: %w", cause))
}
