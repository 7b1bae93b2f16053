package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// routers are several over one server, of which each may die or lose its connection.
type routers struct {
	*pipeline
	server *natsd.Server
	limits router.Limits
}

const routersLease = 3 * time.Second

func setupRouters(t *testing.T, limits router.Limits) *routers {
	t.Helper()
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: routersLease})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &routers{pipeline: &pipeline{t: t, bus: b, ctx: ctx}, server: server, limits: limits}
}

// lines is a log to look into.
type lines struct {
	t    *testing.T
	name string

	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.t.Logf("%s %s: %s", time.Now().Format("05.000"), l.name, p)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// start runs a router behind a proxy. kill ends it as a kill would: nothing of it reaches the server any more.
func (r *routers) start(name string) (proxy *bustest.Proxy, log *lines, kill func()) {
	r.t.Helper()
	proxy, log = bustest.NewProxy(r.t, r.server.ClientURL()), &lines{t: r.t, name: name}
	b, err := bus.Connect(r.ctx, bus.Config{
		URL: proxy.URL(), Username: r.server.Username(), Password: r.server.Password(), Name: name, Lease: routersLease,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	limits := r.limits
	one, err := router.New(router.Config{
		Bus: b, Name: name, Models: func() []string { return []string{"m"} }, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Limits: func(string) *router.Limits { return &limits },
		Price: func(string) *schemas.Price {
			return &schemas.Price{Input: schemas.MoneyUnit, Output: schemas.MoneyUnit}
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = one.Run(ctx) })
	kill = sync.OnceFunc(func() {
		proxy.Cut()
		_ = b.Close()
		stop()
		running.Wait()
	})
	r.t.Cleanup(kill)
	return proxy, log, kill
}

// work is a worker that ends every item with a charge, which it remembers.
type work struct {
	mu     sync.Mutex
	tokens map[string]int64  // by request
	items  map[string]uint64 // the sequence of each request's item
	hold   chan struct{}     // nothing runs before it is closed, when set
}

func (r *routers) worker(hold chan struct{}) *work {
	r.t.Helper()
	w := &work{tokens: make(map[string]int64), items: make(map[string]uint64), hold: hold}
	if err := r.bus.EnsureWorkConsumer(r.ctx, "m"); err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(r.ctx)
	var running sync.WaitGroup
	r.t.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() {
		ticker := time.NewTicker(schemas.HeartbeatInterval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			_ = r.bus.Beat(&schemas.Heartbeat{V: 1, Worker: "w", Models: []schemas.ModelBeat{{Model: "m", Slots: 64}}})
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	running.Go(func() {
		puller := r.bus.Work("m")
		defer puller.Close()
		for n := int64(0); ; {
			batch, err := puller.Fetch(ctx, 8)
			if err != nil {
				return
			}
			for _, d := range batch {
				defer d.Hold(ctx)()
			}
			for _, d := range batch {
				if hold != nil {
					select {
					case <-hold:
					case <-ctx.Done():
						return
					}
				}
				n++
				w.end(r, d, n)
			}
		}
	})
	return w
}

func (w *work) end(r *routers, d *bus.Delivery, n int64) {
	item, err := schemas.DecodeWork("m", d.Header, d.Data)
	if err != nil || item.Reserve == nil {
		r.t.Errorf("work item without a reserve: %v, %v", d.Header, err)
		return
	}
	id := item.Request.Request
	w.mu.Lock()
	first, again := w.items[id]
	w.items[id] = d.Sequence
	w.mu.Unlock()
	if again { // delivered twice; a worker finds the result
		if first != d.Sequence {
			r.t.Errorf("%s was dispatched twice", id)
		}
		d.Settle(bus.Ack)
		return
	}
	tokens := 10 + n%7*100
	charge := &schemas.Charge{Requests: 1, Tokens: tokens, Money: schemas.Money(tokens), Reserve: *item.Reserve, Sent: d.Time}
	result := &schemas.Result{
		V: 1, Tenant: item.Tenant, RequestID: item.Request.Request, Model: "m", Op: schemas.OpChat, Accepted: item.Accepted,
		Finished: time.Now(), Status: schemas.StatusCompleted, Charge: charge,
	}
	if err := r.bus.PutResult(r.ctx, result); err != nil {
		r.t.Errorf("store a result: %v", err)
		return
	}
	w.mu.Lock()
	w.tokens[id] = tokens
	w.mu.Unlock()
	d.Settle(bus.Ack)
}

func (w *work) used() (requests int, tokens int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.tokens {
		tokens += n
	}
	return len(w.tokens), tokens
}

func (r *routers) accept(id string) {
	r.t.Helper()
	_, err := r.bus.Accept(r.ctx, &schemas.Request{Identity: acme(id), ModelToken: "m", Op: schemas.OpChat, Body: []byte(body)})
	if err != nil {
		r.t.Fatal(err)
	}
}

// record is the stored balances of the tenant's partition.
func (r *routers) record() *ledger.Snapshot {
	r.t.Helper()
	stored, err := r.bus.Balances(r.ctx, schemas.PartitionOf("acme"))
	if err != nil {
		r.t.Fatal(err)
	}
	s := &ledger.Snapshot{}
	if stored.Revision > 0 {
		if err := json.Unmarshal(stored.Value, s); err != nil {
			r.t.Fatal(err)
		}
	}
	return s
}

// TestBalancesOutliveRouters kills the router again and again while requests come, run and end. In the end everything that
// was used is counted once.
func TestBalancesOutliveRouters(t *testing.T) {
	limits := ledger.Limits{RequestsPerMinute: 1_000_000, MaxInFlight: 40, Budget: ledger.Budget{Tokens: 1_000_000_000, Money: 1_000_000 * schemas.MoneyUnit}}
	r := setupRouters(t, router.Limits{Limits: limits})
	w := r.worker(nil)
	const rounds, each = 4, 60
	for round := range rounds {
		_, _, kill := r.start(fmt.Sprintf("r%d", round))
		for n := range each {
			r.accept(fmt.Sprintf("req_%d_%d", round, n))
		}
		want := round*each + each/3*(round%3) // early, in the middle, late
		r.poll("some requests to end", func() bool { n, _ := w.used(); return n >= want })
		kill()
	}
	_, _, last := r.start("last")
	r.poll("all requests to end", func() bool { n, _ := w.used(); return n == rounds*each })
	_, tokens := w.used()
	var s *ledger.Snapshot
	r.poll("the balances to be stored", func() bool {
		s = r.record()
		return len(s.Accounts) == 1 && len(s.Holds) == 0 && s.Accounts[0].SpentTokens >= tokens
	})
	if got := s.Accounts[0]; got.SpentTokens != tokens || got.SpentMoney != schemas.Money(tokens) {
		t.Errorf("%d tokens and %d of money are counted, but %d were used", got.SpentTokens, got.SpentMoney, tokens)
	}
	last()
}

// TestTheOneThatWasPausedStops lets a router wake up that another has taken over from: it stores nothing and dispatches
// nothing more, and what it held goes to the other.
func TestTheOneThatWasPausedStops(t *testing.T) {
	r := setupRouters(t, router.Limits{Limits: ledger.Limits{MaxInFlight: 2, Budget: ledger.Budget{Tokens: 1_000_000_000}}, MaxQueueWait: time.Minute})
	hold := make(chan struct{})
	w := r.worker(hold)
	proxy, log, _ := r.start("paused")
	const count = 8
	for n := range count {
		r.accept(fmt.Sprintf("req_%d", n))
	}
	r.poll("two to be dispatched", func() bool { return len(r.record().Holds) == 2 })
	proxy.Set(bustest.ToServer, bustest.Hold)
	_, _, _ = r.start("next")
	r.poll("another to take over", func() bool { return strings.HasPrefix(r.record().Writer, "next-") })
	close(hold)
	r.poll("the next one to work", func() bool { n, _ := w.used(); return n >= 3 })
	proxy.Set(bustest.ToServer, bustest.Pass)
	r.poll("all requests to end", func() bool { n, _ := w.used(); return n == count })
	r.poll("the paused one to notice", func() bool { return log.has("another router") })
	r.accept("last") // whoever has the partition in the end takes the balances over with it
	r.poll("one more request to end", func() bool { n, _ := w.used(); return n == count+1 })
	_, tokens := w.used()
	r.poll("the balances to be stored", func() bool {
		s := r.record()
		return len(s.Accounts) == 1 && len(s.Holds) == 0 && s.Accounts[0].SpentTokens >= tokens
	})
	if s := r.record(); s.Accounts[0].SpentTokens != tokens {
		t.Errorf("%d tokens are counted, but %d were used", s.Accounts[0].SpentTokens, tokens)
	}
}
