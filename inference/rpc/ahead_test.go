package rpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-llm/weir/inference"
)

// source is a stream that never runs dry.
type source struct {
	ctx   context.Context
	size  int
	ends  int // after that many messages; 0 = never
	given int
}

func (s *source) Recv() (*wrapperspb.StringValue, error) {
	if s.ctx.Err() != nil {
		return nil, s.ctx.Err()
	}
	if s.ends > 0 && s.given == s.ends {
		return nil, io.EOF
	}
	s.given++
	return wrapperspb.String(strings.Repeat("x", s.size)), nil
}

// What is read ahead of a slow reader is bounded, in messages and in bytes.
func TestReadAheadIsBounded(t *testing.T) {
	for size, want := range map[int]int{1: aheadMessages, 1000: aheadMessages, 256 << 10: 4, 5 << 20: 1} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := &source{ctx: ctx, size: size}
			queue := newAhead[wrapperspb.StringValue]()
			queue.reading.Go(func() { queue.fill(ctx, s) })
			synctest.Wait()
			if s.given != want {
				t.Errorf("%d messages of %d bytes were read ahead, want %d", s.given, size, want)
			}
			for range want {
				if _, _, err := queue.next(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if s.given != 2*want {
				t.Errorf("%d messages of %d bytes were read after %d were taken, want %d", s.given, size, want, 2*want)
			}
			cancel()
			queue.reading.Wait()
		})
	}
}

func TestReadAheadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := newAhead[wrapperspb.StringValue]()
		queue.reading.Go(func() { queue.fill(t.Context(), &source{ctx: t.Context(), size: 1, ends: 3}) })
		synctest.Wait()
		for i := range 3 {
			if _, more, err := queue.next(); err != nil || more != (i < 2) {
				t.Errorf("message %d: more is %t, %v", i, more, err)
			}
		}
		for range 2 { // it stays so
			if _, _, err := queue.next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last message: %v", err)
			}
		}
		queue.reading.Wait()
	})
}

func TestDrainWaitsNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		newAhead[wrapperspb.StringValue]().drain(time.Second)
		if waited := time.Since(begun); waited != time.Second {
			t.Errorf("waited for %v", waited)
		}
	})
}

// A silence that the timeouts allow never holds a third ping, at which servers end the connection.
func TestPingsAreFewerThanServersAllow(t *testing.T) {
	for _, timeouts := range []inference.Timeouts{{}, {Idle: 10 * time.Minute}, {FirstToken: time.Hour, Idle: time.Second}, {FirstToken: time.Second, Idle: time.Second}} {
		timeouts = timeouts.WithDefaults()
		every := pingEvery(timeouts)
		if silence := max(timeouts.FirstToken, timeouts.Idle); every < minPing || silence > 2*every {
			t.Errorf("a ping every %v in silences of up to %v", every, silence)
		}
	}
}
