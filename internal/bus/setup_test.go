package bus_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// promises are what the guarantees rest on, of a stream.
type promises struct {
	Retention     jetstream.RetentionPolicy
	Discard       jetstream.DiscardPolicy
	NewPerSubject bool
	PerSubject    int64 // 0 is no limit
	Bounded       bool  // in bytes
	Age           time.Duration
	Dedupe        time.Duration
	Transform     string // to
	Republish     bool
	Direct        bool
	DenyDelete    bool
	MessageTTL    bool
	Schedules     bool
	OneFile       bool
}

func TestStreamsAreAsDesigned(t *testing.T) {
	t.Parallel()
	const hour, short, window = time.Hour, 100 * time.Millisecond, 15 * time.Minute
	server := bustest.Server(t)
	bustest.Connect(t, server, bus.Config{})
	want := map[string]promises{
		schemas.StreamRequests: {Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, NewPerSubject: true, PerSubject: 1024, Bounded: true, Dedupe: window, Transform: schemas.QueueTransform},
		schemas.StreamWork:     {Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, NewPerSubject: true, PerSubject: 4096, Bounded: true, Dedupe: window},
		schemas.StreamReplies:  {Discard: jetstream.DiscardOld, Bounded: true, Age: 2 * hour, Dedupe: short, Transform: schemas.RepliesAll, Republish: true, DenyDelete: true},
		schemas.StreamResults:  {Discard: jetstream.DiscardNew, NewPerSubject: true, PerSubject: 1, Bounded: true, Age: 24 * hour, Dedupe: short},
		schemas.StreamCache:    {Discard: jetstream.DiscardOld, PerSubject: 1, Bounded: true, Age: 24 * hour, Dedupe: short, Republish: true, MessageTTL: true},
		schemas.StreamRetry:    {Discard: jetstream.DiscardOld, Age: 7 * 24 * hour, Dedupe: window, MessageTTL: true, Schedules: true},
		schemas.StreamDLQ:      {Discard: jetstream.DiscardOld, Bounded: true, Age: 30 * 24 * hour, Dedupe: 2 * time.Minute},
		schemas.StreamEvents:   {Discard: jetstream.DiscardOld, Bounded: true, Age: 7 * 24 * hour, Dedupe: 2 * time.Minute},
	}
	_, js := raw(t, server)
	for name, w := range want {
		w.Direct, w.OneFile = true, true
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		c := stream.CachedInfo().Config
		got := promises{
			Retention: c.Retention, Discard: c.Discard, NewPerSubject: c.DiscardNewPerSubject, PerSubject: max(c.MaxMsgsPerSubject, 0),
			Bounded: c.MaxBytes > 0, Age: c.MaxAge, Dedupe: c.Duplicates, Republish: c.RePublish != nil, Direct: c.AllowDirect, DenyDelete: c.DenyDelete,
			MessageTTL: c.AllowMsgTTL, Schedules: c.AllowMsgSchedules, OneFile: c.Storage == jetstream.FileStorage && c.Replicas == 1,
		}
		if c.SubjectTransform != nil {
			got.Transform = c.SubjectTransform.Destination
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for _, bucket := range []string{schemas.BucketKeys, schemas.BucketLimits} {
		if _, err := js.KeyValue(t.Context(), bucket); err != nil {
			t.Error(bucket, err)
		}
	}
	if _, err := js.ObjectStore(t.Context(), schemas.BucketObjects); err != nil {
		t.Error(err)
	}
}

func TestConsumersAreAsDesigned(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: 7 * time.Second})
	if err := b.EnsureWorkConsumer(t.Context(), "gpt-4=2E1"); err != nil {
		t.Fatal(err)
	}
	_, js := raw(t, server)
	inAll := 0
	for p := range schemas.Partitions {
		c := consumerConfig(t, js, schemas.StreamRequests, schemas.RouterConsumer(p))
		inAll += c.MaxAckPending
		if c.FilterSubject != schemas.QueueFilter(p) || c.PriorityPolicy != jetstream.PriorityPolicyPinned || c.PinnedTTL != 4*time.Second {
			t.Errorf("partition %d: %+v", p, c)
		}
		wantLeased(t, c)
	}
	if inAll != 20_000 {
		t.Errorf("the routers may hold %d requests, want 20000", inAll)
	}
	model := consumerConfig(t, js, schemas.StreamWork, schemas.WorkConsumer("gpt-4=2E1"))
	if model.FilterSubject != schemas.WorkSubject("gpt-4=2E1") || model.MaxWaiting != 16_384 || model.MaxAckPending < 4096 {
		t.Errorf("of a model: %+v", model)
	}
	wantLeased(t, model)
	wantLeased(t, consumerConfig(t, js, schemas.StreamResults, schemas.ConsumerSink))
}

func wantLeased(t testing.TB, c jetstream.ConsumerConfig) {
	t.Helper()
	if c.AckPolicy != jetstream.AckExplicitPolicy || c.AckWait != 7*time.Second || c.MaxDeliver != -1 || len(c.BackOff) != 0 {
		t.Errorf("%s: acks %v within %v, at most %d deliveries", c.Durable, c.AckPolicy, c.AckWait, c.MaxDeliver)
	}
}

func consumerConfig(t testing.TB, js jetstream.JetStream, stream, name string) jetstream.ConsumerConfig {
	t.Helper()
	c, err := js.Consumer(t.Context(), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().Config
}

// A recreated LLM_REQUESTS must not repeat a sequence, which is the id of requests without one.
func TestRequestSequencesAreNotRepeated(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	before, err := b.Accept(t.Context(), request("r-1"))
	if err != nil {
		t.Fatal(err)
	}
	_, js := raw(t, server)
	if err := js.DeleteStream(t.Context(), schemas.StreamRequests); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a later millisecond", func() bool { return uint64(time.Now().UnixMilli()) > before.Sequence })
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := b.Accept(t.Context(), request("r-2")); err != nil || after.Sequence <= before.Sequence {
		t.Errorf("sequence %d after %d, error %v", after.Sequence, before.Sequence, err)
	}
}

func TestSetupAgainChangesNothing(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	log := &journal{}
	b := bustest.Connect(t, server, bus.Config{Logger: log.logger()})
	accept(t, b, "r-1")
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := stored(t, server, schemas.StreamRequests); n != 1 {
		t.Errorf("%d requests are left, want 1", n)
	}
	if lines := log.lines("differs"); len(lines) > 0 {
		t.Errorf("reported: %q", lines)
	}
}

func TestSetupByMany(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	var all sync.WaitGroup
	for range 4 {
		b := connect(t, server, bus.Config{StoreBytes: 64 << 20})
		all.Go(func() {
			if err := b.Setup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestDifferingStreamIsReportedAndKept(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	bustest.Connect(t, server, bus.Config{})
	edit(t, server, schemas.StreamWork, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 17 })
	edit(t, server, schemas.StreamResults, func(c *jetstream.StreamConfig) { c.Discard, c.DiscardNewPerSubject = jetstream.DiscardOld, false })
	edit(t, server, schemas.StreamReplies, func(c *jetstream.StreamConfig) { c.MaxAge, c.MaxBytes = time.Hour, 100<<20 }) // the operator's to choose
	log := &journal{}
	bustest.Connect(t, server, bus.Config{Logger: log.logger()})
	for _, words := range [][]string{
		{schemas.StreamWork, "max_msgs_per_subject", "want=4096", "live=17"},
		{schemas.StreamResults, "setting=discard ", "want=DiscardNew", "live=DiscardOld"},
		{schemas.StreamResults, "discard_new_per_subject", "want=true", "live=false"},
	} {
		if n := len(log.lines(words...)); n != 1 {
			t.Errorf("%q is reported %d times, want once", words, n)
		}
	}
	if n := len(log.lines("differs")); n != 3 {
		t.Errorf("%d differences are reported, want 3", n)
	}
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), schemas.StreamWork)
	if err != nil || stream.CachedInfo().Config.MaxMsgsPerSubject != 17 {
		t.Errorf("the live configuration was changed, error %v", err)
	}
}

func TestLeaseOfAConsumerFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	bustest.Connect(t, server, bus.Config{Lease: time.Minute})
	b := bustest.Connect(t, server, bus.Config{Lease: 7 * time.Second})
	_, js := raw(t, server)
	wantLeased(t, consumerConfig(t, js, schemas.StreamResults, schemas.ConsumerSink))
	if b.Lease() != 7*time.Second {
		t.Errorf("lease %v", b.Lease())
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	registry := prometheus.NewRegistry()
	connect(t, server, bus.Config{Registerer: registry})
	for want, cfg := range map[string]bus.Config{
		"set --nats":                 {},
		"nats://127.0.0.1:1":         {URL: "nats://127.0.0.1:1"},
		"Authorization Violation":    {URL: server.ClientURL(), Username: "nobody", Password: "x"},
		"NATS context /no/such.json": {Context: "/no/such.json"},
		"register bus metrics":       {InProcess: server, Username: server.Username(), Password: server.Password(), Registerer: registry},
	} {
		if _, err := bus.Connect(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if b := connect(t, server, bus.Config{}); b.Lease() != bus.DefaultLease {
		t.Errorf("lease %v", b.Lease())
	}
}

func edit(t testing.TB, server *natsd.Server, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}
