package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// Limits of the streams (docs/limits.md).
const (
	requestsPerSubject = 1024
	requestsTotal      = 200_000
	workPerSubject     = 4096
	workWaiting        = 16_384 // open pulls; it cannot be changed later
	requestsAckPending = schemas.Partitions * RequestsOut
	repliesAge         = 2 * time.Hour
	resultsAge         = 24 * time.Hour
	cacheAge           = 24 * time.Hour
	retryAge           = 7 * 24 * time.Hour
	dlqAge             = 30 * 24 * time.Hour
	eventsAge          = 7 * 24 * time.Hour
	pinnedTTL          = 4 * time.Second
)

// DedupeWindow is how long the id of a message is known by which a second one of LLM_REQUESTS or LLM_WORK is not stored.
const DedupeWindow = 15 * time.Minute

// RequestsOut is how many requests of a partition may be with a router at once.
const RequestsOut = 5_000

// Setup creates the streams and the fixed consumers that do not exist. What exists with another configuration is left as
// it is and reported in the log. A cluster that has just started may not answer yet: it is asked again for 30 s.
func (b *Bus) Setup(ctx context.Context) error {
	return b.advise(b.patiently(ctx, func() error { return b.setup(ctx) }))
}

const (
	// setupTimeout is how long what a stage needs is asked for while the cluster is electing its leaders.
	setupTimeout = 30 * time.Second
	setupWait    = time.Second // between two tries
)

// patiently repeats a step of the setup while it fails for want of leaders, for setupTimeout at most.
func (b *Bus) patiently(ctx context.Context, step func() error) error {
	deadline := time.Now().Add(setupTimeout)
	for {
		err := step()
		if err == nil || !electing(err) || time.Now().After(deadline) {
			return err
		}
		b.log.Warn("JetStream is not ready and is asked again", "error", err)
		if waitErr := sleep(ctx, setupWait); waitErr != nil {
			return fmt.Errorf("%w: %w", waitErr, err)
		}
	}
}

// electing reports whether the error is that of a cluster that is electing its leaders, or whose servers have not all met.
func electing(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		return true
	}
	api, answered := errors.AsType[*jetstream.APIError](err)
	return answered && (api.ErrorCode == codeUnavailable || api.ErrorCode == codeNoPeers && strings.Contains(api.Description, "peer offline"))
}

func (b *Bus) setup(ctx context.Context) error {
	for _, want := range b.streamConfigs() {
		if err := b.ensureStream(ctx, want); err != nil {
			return err
		}
	}
	if err := b.ensureBuckets(ctx); err != nil {
		return err
	}
	for p := range schemas.Partitions {
		if err := b.ensureConsumer(ctx, schemas.StreamRequests, b.routerConsumer(p)); err != nil {
			return err
		}
		if err := b.ensureConsumer(ctx, schemas.StreamRetry, b.retryConsumer(p)); err != nil {
			return err
		}
	}
	return b.ensureConsumer(ctx, schemas.StreamResults, b.sinkConsumer())
}

// share is a part of the store in percent.
func (b *Bus) share(percent int64) int64 { return b.cfg.StoreBytes / 100 * percent }

func (b *Bus) streamConfigs() []jetstream.StreamConfig {
	configs := []jetstream.StreamConfig{
		{
			Name: schemas.StreamRequests, Subjects: []string{schemas.RequestsAll},
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: schemas.RequestsAll, Destination: schemas.QueueTransform},
			Retention:        jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxMsgsPerSubject: requestsPerSubject, MaxMsgs: requestsTotal, MaxBytes: b.share(15), Duplicates: DedupeWindow,
			// A recreated stream must not repeat a sequence, because it is the id of a request without one.
			FirstSeq: uint64(time.Now().UnixMilli()), AllowDirect: true,
		},
		{
			Name: schemas.StreamWork, Subjects: []string{schemas.WorkAll},
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxMsgsPerSubject: workPerSubject, MaxBytes: b.share(15), Duplicates: DedupeWindow, AllowDirect: true,
		},
		{
			Name: schemas.StreamReplies, Subjects: []string{schemas.ChunksAll},
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: schemas.ChunksAll, Destination: schemas.RepliesAll},
			RePublish:        &jetstream.RePublish{Source: ">", Destination: ">"},
			Retention:        jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxAge: repliesAge, MaxBytes: b.share(25),
			// The shortest window there is: frames carry no message id.
			Duplicates: 100 * time.Millisecond, AllowDirect: true, DenyDelete: true,
		},
		{
			Name: schemas.StreamResults, Subjects: []string{schemas.ResultsAll},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
			MaxAge: resultsAge, MaxBytes: b.share(25), Duplicates: 100 * time.Millisecond, AllowDirect: true,
			Compression: jetstream.S2Compression,
		},
		{
			Name: schemas.StreamCache, Subjects: []string{schemas.CacheAll},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgsPerSubject: 1, MaxAge: cacheAge,
			MaxBytes: b.share(5), Duplicates: 100 * time.Millisecond, AllowDirect: true, AllowMsgTTL: true,
			RePublish: &jetstream.RePublish{Source: schemas.CacheSource, Destination: schemas.CachedAll},
		},
		{
			// No bound on its size: discarding old would evict accepted requests.
			Name: schemas.StreamRetry, Subjects: []string{schemas.RetryHoldAll, schemas.RetryDueAll},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxAge: retryAge, Duplicates: DedupeWindow,
			AllowMsgSchedules: true, AllowMsgTTL: true, AllowDirect: true,
		},
		{
			Name: schemas.StreamDLQ, Subjects: []string{schemas.DLQAll},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxAge: dlqAge, MaxBytes: b.share(4), AllowDirect: true,
		},
		{
			Name: schemas.StreamEvents, Subjects: []string{schemas.EventsAll},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxAge: eventsAge, MaxBytes: b.share(1), AllowDirect: true,
		},
	}
	for i := range configs {
		configs[i].Replicas = b.cfg.Replicas
		configs[i].Storage = jetstream.FileStorage
	}
	return configs
}

func (b *Bus) ensureBuckets(ctx context.Context) error {
	_, err := b.js.ObjectStore(ctx, schemas.BucketObjects)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = b.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: schemas.BucketObjects, TTL: resultsAge, MaxBytes: b.share(9), Replicas: b.cfg.Replicas,
		})
	}
	if err != nil {
		return fmt.Errorf("create object store %s: %w", schemas.BucketObjects, err)
	}
	for _, bucket := range []string{schemas.BucketKeys, schemas.BucketLimits} {
		if err := b.ensureBucket(ctx, bucket); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bus) ensureBucket(ctx context.Context, bucket string) error {
	_, err := b.js.KeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, History: 1, Replicas: b.cfg.Replicas})
	}
	return wrap("create key-value bucket "+bucket, err)
}

func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	stream, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// Two processes that start at once may both find nothing; the same configuration twice is no error.
		if _, err = b.js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil
		}
		return wrap("create stream "+want.Name, err)
	}
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", want.Name, err)
	}
	for _, difference := range differences(want, stream.CachedInfo().Config) {
		b.log.Warn("a stream differs from what Weir expects; change it with `nats stream edit` or keep it on purpose",
			"stream", want.Name, "setting", difference.setting, "want", difference.want, "live", difference.live)
	}
	return nil
}

type difference struct {
	setting    string
	want, live any
}

// differences compares what the guarantees rest on. Sizes and ages are the operator's to change.
func differences(want, live jetstream.StreamConfig) []difference {
	var all []difference
	add := func(setting string, w, l any) {
		if fmt.Sprint(w) != fmt.Sprint(l) {
			all = append(all, difference{setting, w, l})
		}
	}
	add("subjects", want.Subjects, live.Subjects)
	add("retention", want.Retention, live.Retention)
	add("discard", want.Discard, live.Discard)
	add("discard_new_per_subject", want.DiscardNewPerSubject, live.DiscardNewPerSubject)
	add("max_msgs_per_subject", max(want.MaxMsgsPerSubject, 0), max(live.MaxMsgsPerSubject, 0))
	add("storage", want.Storage, live.Storage)
	add("replicas", want.Replicas, live.Replicas)
	add("deny_delete", want.DenyDelete, live.DenyDelete)
	add("subject_transform", transform(want.SubjectTransform), transform(live.SubjectTransform))
	add("republish", want.RePublish != nil, live.RePublish != nil)
	return all
}

func transform(t *jetstream.SubjectTransformConfig) string {
	if t == nil {
		return ""
	}
	return t.Source + " to " + t.Destination
}
