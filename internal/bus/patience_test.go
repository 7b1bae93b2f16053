package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stage that starts while the cluster elects its leaders waits for them, and tells at once what waiting does not mend.
func TestSetupWaitsForLeaders(t *testing.T) {
	api := func(code jetstream.ErrorCode, text string) error {
		return fmt.Errorf("create stream: %w", &jetstream.APIError{ErrorCode: code, Description: text})
	}
	silent := fmt.Errorf("look up consumer: %w", context.DeadlineExceeded)
	for name, c := range map[string]struct {
		failure error
		fails   int // tries
		want    bool
		after   time.Duration
	}{
		"nobody answers for a while":     {silent, 5, true, 5 * setupWait},
		"nobody leads for a while":       {api(codeUnavailable, "JetStream system temporarily unavailable"), 5, true, 5 * setupWait},
		"a server has not joined yet":    {api(codeNoPeers, "no suitable peers for placement, peer offline"), 5, true, 5 * setupWait},
		"there are too few servers":      {api(codeNoPeers, "no suitable peers for placement, insufficient storage"), 5, false, 0},
		"the server has no room":         {api(codeStorage, "insufficient storage resources available"), 5, false, 0},
		"nobody answers, however long":   {silent, 1000, false, setupTimeout + setupWait},
		"an error that says nothing new": {errors.New("bad"), 5, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &Bus{log: slog.New(slog.DiscardHandler)}
				began, tries := time.Now(), 0
				err := b.patiently(t.Context(), func() error {
					if tries++; tries > c.fails {
						return nil
					}
					return c.failure
				})
				if (err == nil) != c.want || err != nil && !errors.Is(err, c.failure) {
					t.Errorf("the setup ended with %v", err)
				}
				if waited := time.Since(began); waited != c.after {
					t.Errorf("it took %v, want %v", waited, c.after)
				}
			})
		})
	}
}
