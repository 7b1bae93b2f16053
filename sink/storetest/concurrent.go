package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// Readers must see whole batches only, and what a reader has seen stays.
func testConcurrentReads(t *testing.T, open Open) {
	s := start(t, open)
	const batches, size = 30, 10
	var wg sync.WaitGroup
	written := make(chan struct{})
	for range 3 {
		wg.Go(func() { watch(t, s, size, written) })
	}
	for b := range batches {
		batch := make([]*schemas.Result, size)
		for i := range batch {
			batch[i] = Record("acme", fmt.Sprintf("r%d-%d", b, i), b*size+i)
		}
		put(t, s, batch...)
	}
	close(written)
	wg.Wait()
	if got, err := count(t.Context(), s); err != nil || got != batches*size {
		t.Errorf("after writing: %d records, %v, want %d", got, err, batches*size)
	}
}

// watch counts the records over and over until everything is written.
func watch(t *testing.T, s sink.Store, size int, written <-chan struct{}) {
	for last := 0; ; {
		n, err := count(t.Context(), s)
		if err != nil || n < last || n%size != 0 {
			t.Errorf("saw %d records after %d, %v: want whole batches of %d, and none lost", n, last, err, size)
			return
		}
		last = n
		select {
		case <-written:
			return
		default:
		}
	}
}

func testConcurrentWriters(t *testing.T, open Open) {
	s := start(t, open)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Put(t.Context(), []*schemas.Result{Record("acme", "same", 0), Record("acme", "too", 1)}); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	checkList(t, s, sink.Query{}, "same", "too")
}

// A write that returned nil before Close is there afterwards, and one that Close cut off is wholly absent.
func testCloseWhileBusy(t *testing.T, open Open) {
	s := open(t)
	var wg sync.WaitGroup
	committed := make(chan int, 1)
	first := make(chan struct{})
	wg.Go(func() {
		n := 0
		for ; ; n++ {
			if err := s.Put(context.Background(), []*schemas.Result{Record("acme", fmt.Sprintf("r%d", n), n)}); err != nil {
				break
			}
			if n == 0 {
				close(first)
			}
		}
		committed <- n
	})
	<-first
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	want := <-committed
	got, err := count(t.Context(), start(t, open))
	if err != nil || got != want {
		t.Errorf("after close and open: %d records, %v; want the %d that were committed", got, err, want)
	}
}

func count(ctx context.Context, s sink.Store) (n int, err error) {
	for _, err := range s.List(ctx, sink.Query{}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
