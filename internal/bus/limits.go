package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/weir-llm/weir/schemas"
)

// Balances is a record of the bucket LLM_LIMITS, by the word of the leader.
type Balances struct {
	Value    []byte
	Revision uint64    // 0: there is none yet
	Stored   time.Time // by the stream's clock
}

func balancesSubject(partition int) string {
	return "$KV." + schemas.BucketLimits + "." + schemas.LimitsKey(partition)
}

// Balances reads the record of a partition.
func (b *Bus) Balances(ctx context.Context, partition int) (Balances, error) {
	m, err := b.getLast(ctx, "KV_"+schemas.BucketLimits, balancesSubject(partition))
	if errors.Is(err, ErrNotFound) {
		return Balances{}, nil
	}
	if err != nil {
		return Balances{}, fmt.Errorf("read the balances of partition %d: %w", partition, err)
	}
	return Balances{Value: m.Data, Revision: m.Sequence, Stored: m.Time}, nil
}

// PutBalances replaces the record of a partition whose revision must still be the one given, and returns the new revision.
// [ErrConflict] says that it is another; that may be this very write, when only the answer to it was lost.
func (b *Bus) PutBalances(ctx context.Context, partition int, value []byte, revision uint64) (uint64, error) {
	msg := nats.NewMsg(balancesSubject(partition))
	msg.Data = value
	msg.Header[schemas.HeaderExpectedSeq] = []string{strconv.FormatUint(revision, 10)}
	acked, err := b.publishStored(ctx, msg, transient)
	if answered(err, codeWrongLastSequence) {
		return 0, fmt.Errorf("balances of partition %d: %w", partition, ErrConflict)
	}
	return acked.Sequence, wrap("store the balances of partition "+strconv.Itoa(partition), err)
}

const (
	workBatch      = 256
	workBatchBytes = 4 << 20
)

// WorkUnderWay is the work items of tenants with limits that are not done, without their bodies. A replica that lags may
// answer, so that an item of the last moment can be missing, and one that is just done there.
func (b *Bus) WorkUnderWay(ctx context.Context) (all []*schemas.Work, err error) {
	for next := uint64(1); ; {
		items, last, err := b.workBatch(ctx, next)
		if err != nil {
			return nil, fmt.Errorf("read the work that is under way: %w", err)
		}
		if last == 0 {
			return all, nil
		}
		all, next = append(all, items...), last+1
	}
}

func (b *Bus) workBatch(ctx context.Context, from uint64) (items []*schemas.Work, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	batch, err := jetstreamext.GetBatch(ctx, b.js, schemas.StreamWork, workBatch,
		jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchSubject(schemas.WorkAll), jetstreamext.GetBatchMaxBytes(workBatchBytes))
	if err != nil {
		return nil, 0, err
	}
	for m, err := range batch {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		last = m.Sequence
		if header(m.Header, schemas.HeaderReserve) == "" {
			continue
		}
		token, _ := strings.CutPrefix(m.Subject, schemas.WorkSubject(""))
		w, err := schemas.DecodeWork(token, m.Header, nil)
		if err != nil || w.Reserve == nil {
			continue // the worker that gets it will say what is wrong with it
		}
		w.Sent = m.Time
		items = append(items, w)
	}
	return items, last, nil
}

// ResultSequence is where the record of a request is in LLM_RESULTS, or [ErrNotFound].
func (b *Bus) ResultSequence(ctx context.Context, id schemas.Identity) (uint64, error) {
	m, err := b.getLast(ctx, schemas.StreamResults, id.Result())
	if err != nil {
		return 0, err
	}
	return m.Sequence, nil
}
