package router

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

const (
	snapshotInterval = time.Second
	loadRetry        = time.Second
	bookWidth        = schemas.Partitions
	chargesBehind    = 4096 // results that may wait for the loop
	looksAtOnce      = 16   // for results that do not come
)

// vault is what the books ask of a [bus.Bus].
type vault interface {
	Balances(ctx context.Context, partition int) (bus.Balances, error)
	PutBalances(ctx context.Context, partition int, value []byte, revision uint64) (uint64, error)
	WorkUnderWay(ctx context.Context) ([]*schemas.Work, error)
	Charges(ctx context.Context, behind uint64, caught func(), fn func(bus.Charged) bool) error
	LastResult(ctx context.Context) (uint64, error)
	ResultSequence(ctx context.Context, id schemas.Identity) (uint64, error)
	Event(kind string, data []byte)
}

// books are the limits of tenants at work in the loop, which owns them. Nothing of them costs anything before a request of a
// tenant with limits comes.
//
// For each partition there is a ledger, once the router has taken it over: it writes its name into the partition's record
// in LLM_LIMITS, so that the router before it loses its next write, and restores the balances from that record, from the
// work that is under way and from the results since. Requests of tenants with limits wait until then.
type books struct {
	loop   *loop
	vault  vault
	log    *slog.Logger
	name   string // of this life of this router
	limits func(tenant string) *Limits
	price  func(model string) *schemas.Price

	ctx     context.Context // of jobs and of the tail
	stop    context.CancelFunc
	tail    sync.WaitGroup
	tailMu  sync.Mutex
	tailing bool // jobs share it
	charges chan bus.Charged
	jobs    *lane

	partitions [schemas.Partitions]*book
	throttled  map[string]*throttle
	timer      *time.Timer // for the next throttle that ends
	next       time.Time
	looked     time.Time
	said       map[string]*limitState
}

// book is a partition's.
type book struct {
	partition int
	reign     int            // which reign of this router over the partition it is
	ledger    *ledger.Ledger // nil: another router has it, or nobody
	loading   bool
	waiting   []*item       // for the ledger
	early     []bus.Charged // read while it was being restored

	revision uint64
	writes   uint64
	dirty    bool
	writing  bool
	written  time.Time

	stream, local time.Time // the clock of the stream at a time here
}

// now is the time by the stream's clock. It goes on by the monotonic clock of this machine, so that nobody who sets a clock
// grants or takes anything.
func (b *book) now() time.Time { return b.stream.Add(time.Since(b.local)) }

func newBooks(cfg Config, v vault, l *loop) *books {
	b := &books{
		loop: l, vault: v, log: cfg.Logger, name: cfg.Name + "-" + rand.Text()[:8], limits: cfg.Limits, price: cfg.Price,
		charges: make(chan bus.Charged, chargesBehind), jobs: &lane{width: bookWidth, finished: l.finished},
		throttled: make(map[string]*throttle), timer: time.NewTimer(time.Hour), said: make(map[string]*limitState),
	}
	for p := range b.partitions {
		b.partitions[p] = &book{partition: p}
	}
	return b
}

// keepBooks has the router keep to the limits of tenants. It comes before run.
func (l *loop) keepBooks(ctx context.Context, v vault) {
	l.books = newBooks(l.cfg, v, l)
	l.books.ctx, l.books.stop = context.WithCancel(ctx)
	l.queue.gate = l.books
}

// events are what the loop waits for; nil channels when there are no books.
func (b *books) events() (charges <-chan bus.Charged, woken <-chan time.Time) {
	if b == nil {
		return nil, nil
	}
	return b.charges, b.timer.C
}

// drain ends what waits and has not begun. The balances are made again from the log.
func (b *books) drain() {
	b.jobs.clear()
	b.stop()
}

func (b *books) close() {
	b.stop()
	b.timer.Stop()
	b.tail.Wait()
}

func (b *books) of(it *item) *book { return b.partitions[it.partition] }

// ready reports whether the balances of the request's tenant are here. If not, the request waits and is routed again later.
func (b *books) ready(it *item) bool {
	if !b.limited(it.req.Tenant) {
		return true
	}
	b.estimate(it)
	book := b.of(it)
	if book.ledger != nil {
		return true
	}
	book.waiting = append(book.waiting, it)
	b.load(book)
	return false
}

// estimate notes what a request is taken to use, unless that was done.
func (b *books) estimate(it *item) {
	if it.reserve != nil {
		return
	}
	cost := b.loop.learnt.cost(it.model(), it.estimate)
	input := min(it.input, cost)
	it.reserve = &schemas.Reserve{Requests: 1, Input: input, Output: cost - input}
	if name, err := schemas.DecodeModel(it.model()); err == nil {
		it.reserve.Money = b.price(name).Estimate(it.reserve.Input, it.reserve.Output)
	}
}

// check asks the ledger, which must be here, whether a request may go now.
func (b *book) check(it *item) ledger.Verdict {
	if it.reserve == nil { // its tenant had no limits when it came
		return ledger.Verdict{}
	}
	return b.ledger.Check(it.req.Tenant, it.reserve, b.now())
}

// hold reserves for a request.
func (b *books) hold(it *item) {
	book := b.of(it)
	book.ledger.Hold(it.req.Identity, it.reserve, book.until(it), book.now())
	book.dirty = true
}

// holdGrace is how long after its deadline a request's result is waited for.
const holdGrace = 5 * time.Minute

func (b *book) until(it *item) time.Time { return it.deadline.Add(holdGrace) }

// sending reserves for a request that is about to be dispatched, unless that was done, and tells it what is left.
func (b *books) sending(it *item) {
	book := b.of(it)
	if it.reserve == nil || book.ledger == nil {
		return
	}
	b.hold(it)
	book.ledger.Sent(it.req.Identity)
	b.tell(it)
}

// tell notes what the tenant of a request may still do, for the door.
func (b *books) tell(it *item) {
	if book := b.of(it); it.reserve != nil && book.ledger != nil {
		a := book.ledger.Allowance(it.req.Tenant, book.now())
		it.allowance = a.String()
	}
}

// unsent says that a dispatch certainly left nothing behind.
func (b *books) unsent(it *item, err error) {
	if book := b.of(it); it.reserve != nil && book.ledger != nil && !errors.Is(err, bus.ErrUnresolved) {
		book.ledger.Unsent(it.req.Identity)
	}
}

// settled gives back what a request has reserved that never left.
func (b *books) settled(it *item) {
	book := b.of(it)
	if it.reserve == nil || book.ledger == nil {
		return
	}
	if book.ledger.ReleaseUnsent(it.req.Identity, book.now()) {
		book.dirty = true
		b.wake(it.req.Tenant)
	}
}

// hit counts a request that is answered without a model, from a cache or with another's answer: it is a request and no tokens.
// At its limit of requests a tenant whose policy is to reject is refused, and any other where the request would have to wait
// for longer than it may; else there is nothing to wait for, and the tenant goes into debt. The answer's result must be made with
// the request's reserve, which says so in the log.
func (b *books) hit(it *item) *schemas.Error {
	if b == nil || !b.counts(it) {
		return nil
	}
	limits, book := b.limits(it.req.Tenant), b.of(it)
	it.reserve = &schemas.Reserve{Requests: 1}
	if v := book.check(it); limits != nil && v.Over != ledger.OverNothing && (limits.Reject || v.Wait > limits.maxWait()) {
		b.reached(it.req.Tenant)
		return limits.refusal(v)
	}
	b.countHit(it)
	return nil
}

// countHit reserves for a request that runs nowhere. One that a router before may have dispatched gives its place back: whoever
// it waits for may need that.
func (b *books) countHit(it *item) {
	b.release(it.req.Identity)
	b.sending(it)
}

// resume counts a request as hit does, without a look at the limits: it was let in before.
func (b *books) resume(it *item) {
	if b == nil || it.reserve == nil {
		return
	}
	it.reserve = &schemas.Reserve{Requests: 1}
	b.countHit(it)
}

// inherit counts a request that was to be answered without a model, and now goes on with the run of another.
func (b *books) inherit(it *item) {
	if b == nil || it.reserve == nil {
		return
	}
	b.unhit(it)
	b.estimate(it)
	b.sending(it)
}

// unhit forgets that a request was to be answered without a model: now it runs.
func (b *books) unhit(it *item) {
	if b == nil || it.reserve == nil {
		return
	}
	it.reserve = nil
	if book := b.of(it); book.ledger != nil {
		book.ledger.Release(it.req.Identity, book.now())
		book.dirty = true
	}
}

// apply counts a result.
func (b *books) apply(c bus.Charged) {
	book := b.partitions[schemas.PartitionOf(c.Tenant)]
	switch {
	case book.ledger != nil:
		if book.ledger.Settle(settled(c), book.now()) {
			book.dirty = true
			b.wake(c.Tenant)
		}
	case book.loading:
		book.early = append(book.early, c)
	}
}

func settled(c bus.Charged) *ledger.Settled {
	return &ledger.Settled{Identity: c.Identity, Sequence: c.Sequence, At: c.Time, Charge: c.Charge}
}

// tick does what is not an event.
func (b *books) tick(now time.Time) {
	b.renew()
	b.overdue(now)
	for _, book := range b.partitions {
		if book.ledger != nil && book.dirty && !book.writing && now.Sub(book.written) >= snapshotInterval {
			b.store(book, now)
		}
	}
	if now.Sub(b.looked) >= time.Second {
		b.looked = now
		for _, book := range b.partitions {
			if book.ledger != nil {
				b.look(book)
			}
		}
		b.sayWhoLeft(now)
		b.measure()
	}
}

// look looks for results that do not come: a request may have been dispatched after its result was counted, and then its
// reserve would stay for ever.
func (b *books) look(book *book) {
	for _, id := range book.ledger.Doubtful(looksAtOnce, book.now()) {
		b.lookFor(book, id)
	}
}

// lookFor gives back what a request has reserved whose result was counted before. When that cannot be known now, it is looked
// for again soon.
func (b *books) lookFor(book *book, id schemas.Identity) {
	reign := book.reign
	b.jobs.submit(func() func() {
		sequence, err := b.vault.ResultSequence(b.ctx, id)
		return func() {
			switch {
			case book.ledger == nil || book.reign != reign || errors.Is(err, bus.ErrNotFound):
			case err != nil:
				book.ledger.Doubt(id)
			case sequence <= book.ledger.Applied():
				book.ledger.Release(id, book.now())
				book.dirty = true
				b.wake(id.Tenant)
			}
		}
	})
}

// resent looks for the result of a request that was dispatched here although another router may have dispatched it before: that
// may have been counted.
func (b *books) resent(it *item) {
	if book := b.of(it); it.reserve != nil && book.ledger != nil {
		b.lookFor(book, it.req.Identity)
	}
}
