package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// restored is a partition's balances as a router takes them over.
type restored struct {
	ledger        *ledger.Ledger
	revision      uint64
	stream, local time.Time
}

// load takes a partition over. What comes from the log meanwhile is kept.
func (b *books) load(book *book) {
	if book.loading {
		return
	}
	book.loading = true
	book.writes++
	writes, reign := book.writes, book.reign
	b.jobs.submit(func() func() {
		// First, so that between the end of what is restored and what is followed there is no gap.
		err := b.follow()
		var r *restored
		if err == nil {
			r, err = b.restore(book.partition, writes)
		}
		return func() {
			if err == nil && book.reign != reign {
				err = errLeft
			}
			b.loaded(book, r, err)
		}
	})
}

// errLeft says that the partition was left while its balances were being restored.
var errLeft = errors.New("the partition was left meanwhile")

// follow begins to lead what results say into the loop, once.
func (b *books) follow() error {
	b.tailMu.Lock()
	defer b.tailMu.Unlock()
	if b.tailing {
		return nil
	}
	last, err := b.vault.LastResult(b.ctx)
	if err != nil {
		return err
	}
	b.tailing = true
	b.tail.Go(func() {
		_ = b.vault.Charges(b.ctx, last, nil, func(c bus.Charged) bool { // it ends with the context only
			select {
			case b.charges <- c:
				return true
			case <-b.ctx.Done():
				return false
			}
		})
	})
	return nil
}

// restore makes the balances of a partition anew. The first thing is to write the name of this router into the record, which
// ends the reign of the one before.
func (b *books) restore(partition int, writes uint64) (*restored, error) {
	ctx := b.ctx
	record, err := b.vault.Balances(ctx, partition)
	if err != nil {
		return nil, err
	}
	last, err := b.vault.LastResult(ctx)
	if err != nil {
		return nil, err
	}
	snapshot := &ledger.Snapshot{V: schemas.Version, Applied: last}
	if record.Revision > 0 {
		if snapshot, err = ledger.DecodeSnapshot(record.Value); err != nil {
			// Limits that are counted anew are better than requests that never run.
			b.log.Error("the balances of tenants cannot be read and begin anew", keyPartition, partition, keyError, err)
			snapshot = &ledger.Snapshot{V: schemas.Version, Applied: last}
		}
	}
	snapshot.Writer, snapshot.Write = b.name, writes
	r := &restored{}
	if r.revision, err = b.put(ctx, partition, snapshot, record.Revision); err != nil {
		return nil, err
	}
	mine, err := b.vault.Balances(ctx, partition)
	if err != nil {
		return nil, err
	}
	r.stream, r.local = mine.Stored, time.Now()
	if mine.Revision != r.revision {
		return nil, fmt.Errorf("partition %d was taken over meanwhile: %w", partition, bus.ErrConflict)
	}
	if record.Revision == 0 {
		snapshot.At = r.stream
	}
	sent, err := b.underWay(ctx, partition)
	if err != nil {
		return nil, err
	}
	results, err := b.since(ctx, partition, snapshot.Applied)
	if err != nil {
		return nil, err
	}
	r.ledger = ledger.Restore(b.balanced, snapshot, sent, results, r.stream.Add(time.Since(r.local)))
	return r, nil
}

// balanced is the part of a tenant's limits that needs balances.
func (b *books) balanced(tenant string) *ledger.Limits {
	if limits := b.limits(tenant); limits != nil {
		return &limits.Limits
	}
	return nil
}

// put stores a snapshot. When the record turns out to be another, it may be this one, of which only the answer was lost.
func (b *books) put(ctx context.Context, partition int, s *ledger.Snapshot, revision uint64) (uint64, error) {
	data, err := s.Encode()
	if err != nil {
		return 0, err
	}
	stored, err := b.vault.PutBalances(ctx, partition, data, revision)
	if !errors.Is(err, bus.ErrConflict) {
		return stored, err
	}
	record, readErr := b.vault.Balances(ctx, partition)
	if readErr != nil {
		return 0, readErr
	}
	if there, decodeErr := ledger.DecodeSnapshot(record.Value); decodeErr == nil && there.Writer == s.Writer && there.Write == s.Write {
		return record.Revision, nil
	}
	return 0, err
}

func (b *books) underWay(ctx context.Context, partition int) (sent []ledger.Sent, err error) {
	items, err := b.vault.WorkUnderWay(ctx)
	for _, w := range items {
		if schemas.PartitionOf(w.Tenant) == partition {
			deadline := w.Deadline
			if deadline.IsZero() {
				deadline = w.Accepted.Add(schemas.DefaultDeadline)
			}
			sent = append(sent, ledger.Sent{Identity: w.Identity, Reserve: *w.Reserve, At: w.Sent, Until: deadline.Add(holdGrace)})
		}
	}
	return sent, err
}

// since is what the results behind a sequence say, up to the last that is stored.
func (b *books) since(ctx context.Context, partition int, behind uint64) (all []ledger.Settled, err error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	err = b.vault.Charges(reading, behind, stop, func(c bus.Charged) bool {
		if schemas.PartitionOf(c.Tenant) == partition {
			all = append(all, *settled(c))
		}
		return true
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if reading.Err() != nil {
		err = nil // it is all there
	}
	return all, err
}

// loaded takes what was restored, and routes the requests that waited for it.
func (b *books) loaded(book *book, r *restored, err error) {
	book.loading = false
	waiting, early := book.waiting, book.early
	book.waiting, book.early = nil, nil
	switch {
	case b.loop.draining:
		return
	case err != nil:
		b.log.Warn("taking over the limits of tenants failed; their requests wait", keyPartition, book.partition, keyError, err)
		book.waiting = waiting
		b.later(book)
		return
	}
	book.ledger, book.revision, book.stream, book.local, book.dirty = r.ledger, r.revision, r.stream, r.local, true
	b.log.Info("took over the limits of tenants", keyPartition, book.partition)
	for _, c := range early {
		b.apply(c)
	}
	for _, it := range waiting {
		b.loop.route(it)
	}
}

// later routes what waits again after a while: it may be cancelled or too late by then, or else it makes another try.
func (b *books) later(book *book) {
	b.jobs.submit(func() func() {
		pause(b.ctx, loadRetry)
		return func() {
			waiting := book.waiting
			book.waiting = nil
			for _, it := range waiting {
				if b.loop.held.get(it.sequence) == it && !b.loop.draining {
					b.loop.route(it)
				}
			}
		}
	})
}

// store writes a snapshot.
func (b *books) store(book *book, now time.Time) {
	book.dirty, book.writing, book.written = false, true, now
	book.writes++
	snapshot := book.ledger.Snapshot(book.now())
	snapshot.Writer, snapshot.Write = b.name, book.writes
	revision, reign := book.revision, book.reign
	b.jobs.submit(func() func() {
		stored, err := b.put(b.ctx, book.partition, snapshot, revision)
		return func() {
			book.writing = false
			switch {
			case book.reign != reign:
			case err == nil:
				book.revision = stored
			case errors.Is(err, bus.ErrConflict):
				b.lose(book)
			default:
				book.dirty = true
				b.log.Warn("the balances of tenants were not stored; it is tried again", keyPartition, book.partition, keyError, err)
			}
		}
	})
}

// lose ends the reign over a partition because another router has taken it over. What waits goes back to the stream, which
// gives it to the other, or here again if this router is still the one that the stream serves.
func (b *books) lose(book *book) {
	b.log.Warn("another router has taken over the limits of tenants; requests go back to the stream", keyPartition, book.partition)
	b.loop.disown(book.partition)
}

// leave forgets the balances of a partition. Whoever has it next makes them again from the log.
func (b *books) leave(partition int) {
	book := b.partitions[partition]
	waiting := book.waiting
	book.ledger, book.waiting, book.early = nil, nil, nil
	book.reign++
	for _, it := range waiting {
		b.loop.settle(it, bus.Nak)
	}
	for tenant := range b.throttled {
		if schemas.PartitionOf(tenant) == partition {
			delete(b.throttled, tenant)
		}
	}
	for tenant := range b.said { // the other one tells of them
		if schemas.PartitionOf(tenant) == partition {
			delete(b.said, tenant)
		}
	}
}
