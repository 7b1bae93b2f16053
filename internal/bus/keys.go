package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// ErrConflict says that somebody else has written the record since it was read.
var ErrConflict = errors.New("changed by somebody else meanwhile")

// keyWrites is where writes to the bucket are published, whether they succeed or not.
const keyWrites = "$KV." + schemas.BucketKeys + ".>"

const (
	keyLate        = 400 * time.Millisecond // for a write that was published to be told of
	keyListTimeout = 10 * time.Second       // for all entries to come
	keyRetry       = 200 * time.Millisecond // between tries to watch
)

// KeyStore is the key-value bucket LLM_KEYS. What its values mean is not known here.
type KeyStore struct {
	bus *Bus
}

// KeyEntry is one record, or with a nil Value the news that there is none any more.
type KeyEntry struct {
	ID       string
	Value    []byte
	Revision uint64
}

// KeyChange is what a watch tells: with All everything there is, else what has changed.
type KeyChange struct {
	All     bool
	Entries []KeyEntry
}

// Keys is the store of API keys.
func (b *Bus) Keys() *KeyStore { return &KeyStore{bus: b} }

// Ensure makes the store if it does not exist, for a command that comes before the first start of the pipeline. On a
// cluster it does so only when it was told the number of replicas, which is hard to change later.
func (k *KeyStore) Ensure(ctx context.Context) error {
	_, err := k.bus.js.KeyValue(ctx, schemas.BucketKeys)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return wrap("open the key store "+schemas.BucketKeys, err)
	}
	if k.bus.control.ConnectedClusterName() != "" && k.bus.cfg.Replicas == 1 {
		return fmt.Errorf("there is no key store %s on this cluster yet: start a stage of weir on it first, or set replicas: 3", schemas.BucketKeys)
	}
	return k.bus.ensureBucket(ctx, schemas.BucketKeys)
}

func (k *KeyStore) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	bucket, err := k.bus.js.KeyValue(ctx, schemas.BucketKeys)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("there is no key store %s here: start weir on this NATS, or create a key first: %w", schemas.BucketKeys, ErrNotFound)
	}
	return bucket, wrap("open the key store "+schemas.BucketKeys, err)
}

// Get reads a record, or gives ErrNotFound.
func (k *KeyStore) Get(ctx context.Context, id string) (KeyEntry, error) {
	bucket, err := k.bucket(ctx)
	if err != nil {
		return KeyEntry{}, err
	}
	entry, err := bucket.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return KeyEntry{}, fmt.Errorf("key %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return KeyEntry{}, fmt.Errorf("read key %s: %w", id, err)
	}
	return KeyEntry{ID: id, Value: entry.Value(), Revision: entry.Revision()}, nil
}

// Create stores a record that must not be there yet, else ErrConflict.
func (k *KeyStore) Create(ctx context.Context, id string, value []byte) error {
	bucket, err := k.bucket(ctx)
	if err != nil {
		return err
	}
	_, err = bucket.Create(ctx, id, value)
	return keyWritten(id, err)
}

// Update replaces a record whose revision must still be the one given, else ErrConflict.
func (k *KeyStore) Update(ctx context.Context, id string, value []byte, revision uint64) error {
	bucket, err := k.bucket(ctx)
	if err != nil {
		return err
	}
	_, err = bucket.Update(ctx, id, value, revision)
	return keyWritten(id, err)
}

func keyWritten(id string, err error) error {
	api, answered := errors.AsType[*jetstream.APIError](err)
	if errors.Is(err, jetstream.ErrKeyExists) || answered && wrongSequence(api.ErrorCode) {
		return fmt.Errorf("key %s: %w", id, ErrConflict)
	}
	return wrap("write key "+id, err)
}

func wrongSequence(code jetstream.ErrorCode) bool {
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// List gives all records.
func (k *KeyStore) List(ctx context.Context) ([]KeyEntry, error) {
	watch, stop, err := k.watch(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	return all(ctx, watch)
}

// Watch calls fn with all records, and then with each change. Where it may have missed one, which is after a
// reconnection, it begins again with all. Calls do not overlap. It returns when ctx ends.
func (k *KeyStore) Watch(ctx context.Context, fn func(KeyChange)) error {
	for ctx.Err() == nil {
		if err := k.watchOnce(ctx, fn); err != nil && ctx.Err() == nil {
			k.bus.log.Warn("the API keys cannot be watched now; those that are known go on working", "error", err)
		}
		_ = sleep(ctx, keyRetry)
	}
	return nil
}

// watchOnce returns when the watch may have missed something: after a reconnection, and when it has not told of a write
// that was seen to be published. The consumer behind a watch lives on one server; when that dies, the library notices only
// by the missing of heartbeats, after about ten seconds.
func (k *KeyStore) watchOnce(ctx context.Context, fn func(KeyChange)) error {
	again := k.bus.control.StatusChanged(nats.CONNECTED)
	defer k.bus.control.RemoveStatusListener(again)
	written := make(chan *nats.Msg, 64)
	hints, err := k.bus.control.ChanSubscribe(keyWrites, written)
	if err != nil {
		return fmt.Errorf("subscribe to writes of API keys: %w", err)
	}
	defer func() { _ = hints.Unsubscribe() }()
	watch, stop, err := k.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	entries, err := all(ctx, watch)
	if err != nil {
		return err
	}
	fn(KeyChange{All: true, Entries: entries})
	untold := 0
	late := time.NewTimer(keyLate)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			return nil
		case <-written:
			untold++
			late.Reset(keyLate)
		case <-late.C:
			if untold > 0 {
				return nil
			}
		case entry, open := <-watch.Updates():
			if !open {
				return errors.New("the watch ended")
			}
			if entry != nil {
				untold = max(untold-1, 0)
				fn(KeyChange{Entries: []KeyEntry{keyEntry(entry)}})
			}
		}
	}
}

// watch begins one; stop must be called.
func (k *KeyStore) watch(ctx context.Context) (_ jetstream.KeyWatcher, stop func(), err error) {
	opening, cancel := context.WithTimeout(ctx, keyListTimeout)
	defer cancel()
	bucket, err := k.bucket(opening)
	if err != nil {
		return nil, nil, err
	}
	watching, end := context.WithCancel(ctx)
	watch, err := bucket.WatchAll(watching)
	if err != nil {
		end()
		return nil, nil, fmt.Errorf("watch the key store: %w", err)
	}
	return watch, func() {
		_ = watch.Stop()
		for range watch.Updates() { // or the one that delivers would wait for ever
		}
		end()
	}, nil
}

// all reads a new watch up to the marker behind what was there.
func all(ctx context.Context, watch jetstream.KeyWatcher) (entries []KeyEntry, err error) {
	ctx, cancel := context.WithTimeout(ctx, keyListTimeout)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("list the API keys: %w", ctx.Err())
		case entry, open := <-watch.Updates():
			switch {
			case !open:
				return nil, errors.New("list the API keys: the watch ended")
			case entry == nil:
				return entries, nil
			}
			if e := keyEntry(entry); e.Value != nil {
				entries = append(entries, e)
			}
		}
	}
}

func keyEntry(entry jetstream.KeyValueEntry) KeyEntry {
	e := KeyEntry{ID: entry.Key(), Revision: entry.Revision()}
	if entry.Operation() == jetstream.KeyValuePut {
		e.Value = append([]byte{}, entry.Value()...) // never nil: an empty record is one all the same
	}
	return e
}

// Record stores an operational event in LLM_EVENTS and waits until it is there.
func (b *Bus) Record(ctx context.Context, kind string, data []byte) error {
	_, err := b.js.Publish(ctx, schemas.EventSubject(kind), data)
	return wrap("record an event of kind "+kind, err)
}
