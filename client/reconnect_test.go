package client

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// followed reads a stream over connections, in a bubble, and tells how many there were and how long it took.
func followed(t *testing.T, connect func(n int, next uint64, hear func(), emit func(Event) bool) error) (events, connections int, took time.Duration, err error) {
	t.Helper()
	f := follower{limit: time.Minute, silence: silence, log: slog.New(slog.DiscardHandler)}
	began := time.Now()
	for _, err = range f.follow(t.Context(), 0, func(_ context.Context, next uint64, hear func(), emit func(Event) bool) error {
		connections++
		return connect(connections, next, hear, emit)
	}) {
		if err == nil {
			events++
		}
	}
	return events, connections, time.Since(began), err
}

func cut() error { return &broken{cause: errCut} }

func TestFollowGivesUp(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]func(n int, next uint64, hear func(), emit func(Event) bool) error{
		"nobody there": func(int, uint64, func(), func(Event) bool) error { return cut() },
		"cut at once":  func(_ int, _ uint64, hear func(), _ func(Event) bool) error { hear(); return cut() },
		"silent, then cut": func(_ int, _ uint64, hear func(), _ func(Event) bool) error {
			hear()
			time.Sleep(20 * time.Second)
			return cut()
		},
		"the same event only": func(_ int, _ uint64, _ func(), emit func(Event) bool) error { emit(Event{}); return cut() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, connections, took, err := followed(t, connect)
				if e, ok := errors.AsType[*schemas.Error](err); !ok || e.Code != schemas.CodeUnavailable || took < 45*time.Second || took > 2*time.Minute || connections < 3 {
					t.Errorf("%v after %s and %d connections", err, took, connections)
				}
			})
		})
	}
}

// A server may ask for a longer pause than there is time to come back.
func TestFollowWaitsNoLongerThanItTries(t *testing.T) {
	t.Parallel()
	for pause, want := range map[time.Duration]time.Duration{time.Hour: 0, 50 * time.Second: 50 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			_, connections, took, err := followed(t, func(int, uint64, func(), func(Event) bool) error {
				return later(schemas.Errorf(schemas.CodeRateLimit, "slower").WithRetryAfter(pause))
			})
			if e, ok := errors.AsType[*schemas.Error](err); !ok || e.Code != schemas.CodeRateLimit || e.RetryAfter != pause || took != want {
				t.Errorf("%s: %v after %s and %d connections", pause, err, took, connections)
			}
		})
	}
}

func TestFollowGoesOn(t *testing.T) {
	t.Parallel()
	const many = 40
	for name, connect := range map[string]func(n int, next uint64, hear func(), emit func(Event) bool) error{
		"an event now and then": func(n int, next uint64, _ func(), emit func(Event) bool) error {
			time.Sleep(30 * time.Second)
			if emit(Event{Cursor: schemas.Cursor{Index: next}}); n == many {
				return nil
			}
			return cut()
		},
		"signs of life for long": func(n int, _ uint64, hear func(), emit func(Event) bool) error {
			time.Sleep(30 * time.Second)
			hear()
			if n == many {
				return nil
			}
			return cut()
		},
		"the first failure after long": func(n int, _ uint64, _ func(), _ func(Event) bool) error {
			if n == 1 {
				time.Sleep(30 * time.Minute)
				return cut()
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, _, took, err := followed(t, connect); err != nil || took < 20*time.Minute {
					t.Errorf("%v after %s", err, took)
				}
			})
		})
	}
}

// What comes twice is yielded once, and what does not follow is never yielded.
func TestFollowHasNoGapAndNoDuplicate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := follower{limit: time.Minute, log: slog.New(slog.DiscardHandler)}
		sent := [][]uint64{{0, 1, 3}, {0, 1, 2, 2}, {5}, {3, 4}}
		var got, asked []uint64
		for event, err := range f.follow(t.Context(), 0, func(_ context.Context, next uint64, _ func(), emit func(Event) bool) error {
			asked = append(asked, next)
			for _, index := range sent[len(asked)-1] {
				if !emit(Event{Cursor: schemas.Cursor{Index: index}}) {
					return cut()
				}
			}
			if len(asked) == len(sent) {
				return nil
			}
			return cut()
		}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, event.Cursor.Index)
		}
		want := []uint64{0, 1, 2, 3, 4}
		if len(got) != len(want) {
			t.Fatalf("events %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("events %v, want %v", got, want)
			}
		}
		if asked[1] != 2 || asked[3] != 3 {
			t.Errorf("asked from %v", asked)
		}
	})
}
