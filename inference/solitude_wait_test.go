package inference

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A worker stands still for a request that must run alone no longer than aloneWait, and takes work again afterwards.
func TestSolitudeIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSolitude(func() {})
		for range 2 {
			if !s.enter() {
				t.Fatal("a worker that nobody wants alone takes nothing")
			}
		}
		taking, stop, err := s.taking(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		began := time.Now()
		patient, cancel := context.WithTimeout(t.Context(), aloneWait)
		defer cancel()
		again := make(chan time.Duration, 1)
		go func() {
			<-taking.Done()
			if s.enter() {
				t.Error("a run began beside one that must be alone")
			}
			_, stop, err := s.taking(t.Context())
			if err != nil {
				t.Error(err)
			}
			stop()
			again <- time.Since(began)
		}()
		if _, err := s.alone(patient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it was alone beside another, or: %v", err)
		}
		if after := <-again; after != aloneWait {
			t.Errorf("work was taken again after %v, want %v", after, aloneWait)
		}
		s.leave()
		s.leave()
		if s.running != 0 || s.wanted != 0 {
			t.Errorf("%d run and %d want to be alone at the end", s.running, s.wanted)
		}
	})
}
