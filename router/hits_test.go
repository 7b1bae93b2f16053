package router

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// hit answers a request of acme without a model.
func (b *bench) hit(n int) (refused *schemas.Error) {
	done := make(chan struct{})
	b.loop.finished <- func() {
		it := &item{
			req: &schemas.Request{Identity: schemas.Identity{Tenant: "acme", Request: fmt.Sprint("hit_", n)}, ModelToken: "m"}, estimate: 500, input: 500,
			partition: schemas.PartitionOf("acme"), deadline: time.Now().Add(time.Minute),
		}
		b.loop.books.ready(it)
		refused = b.loop.books.hit(it)
		close(done)
	}
	<-done
	return refused
}

// TestHitsAreLimited lets a tenant whose policy is to queue have hits that it would not have to wait for too long, and no more.
func TestHitsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 60}, MaxQueueWait: 30 * time.Second})
		b.from("acme", 10)
		for n := range 89 {
			if refused := b.hit(n); refused != nil {
				t.Fatalf("hit %d: %v", n, refused)
			}
		}
		if refused := b.hit(89); refused == nil || refused.Code != schemas.CodeRateLimit || refused.RetryAfter != 31*time.Second {
			t.Errorf("a hit that would have to wait for 31 s: %+v", refused)
		}
		time.Sleep(time.Second)
		if refused := b.hit(90); refused != nil {
			t.Errorf("a second later: %v", refused)
		}
	})
}

// TestAHitIsARequest counts answers without a model as requests, and as no tokens.
func TestAHitIsARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 3, TokensPerMinute: 1000, MaxInFlight: 2}, Reject: true})
		b.from("acme", 10)
		b.wantDispatched("idk_1")
		for n := range 2 {
			if refused := b.hit(n); refused != nil {
				t.Errorf("hit %d: %v", n, refused)
			}
		}
		if refused := b.hit(3); refused == nil || refused.Code != schemas.CodeRateLimit || refused.RetryAfter != 20*time.Second {
			t.Errorf("the fourth request of three: %v", refused)
		}
		b.from("acme", 10)
		b.wantAnswer("idk_2", schemas.CodeRateLimit)
		b.after(20 * time.Second)
		b.from("acme", 980) // the hits took no tokens, and no place in flight
		b.wantDispatched("idk_1", "idk_3")
	})
}
