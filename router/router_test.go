package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

const body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`

// patience is how long a test as a whole waits for what must come, on a machine that is busy with something else too.
const patience = 3 * time.Minute

// pipeline is a server with a bus for the test, a plain NATS client and one router for model m.
type pipeline struct {
	t   *testing.T
	bus *bus.Bus
	nc  *nats.Conn
	js  jetstream.JetStream
	ctx context.Context

	registry *prometheus.Registry // of the router that runs
}

func setup(t *testing.T) *pipeline {
	t.Helper()
	t.Parallel()
	return setupOn(t, bustest.Server(t), bus.Config{})
}

// setupOn is setup at a server, with a bus as configured.
func setupOn(t *testing.T, server *natsd.Server, cfg bus.Config) *pipeline {
	t.Helper()
	b := bustest.Connect(t, server, cfg)
	nc, err := nats.Connect(server.ClientURL(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &pipeline{t: t, bus: b, nc: nc, js: js, ctx: ctx}
}

// route runs a router until stop is called, which waits for it to drain.
func (p *pipeline) route() (stop func()) {
	p.t.Helper()
	p.registry = prometheus.NewRegistry()
	return p.routeOn(router.Config{Bus: p.bus, Name: "r1", Registerer: p.registry})
}

// routeOn runs a router of a test, which fills in the rest.
func (p *pipeline) routeOn(cfg router.Config) (stop func()) {
	p.t.Helper()
	cfg.Models = func() []string { return []string{"m"} }
	cfg.Logger = slog.New(slog.NewTextHandler(p.t.Output(), nil)).With("at", cfg.Name)
	r, err := router.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			p.t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.t.Cleanup(stop)
	return stop
}

// publish sends a request as a plain client does and returns its sequence.
func (p *pipeline) publish(model, payload string, header nats.Header) uint64 {
	p.t.Helper()
	ack, err := p.js.PublishMsg(p.ctx, &nats.Msg{Subject: "llm.requests.acme." + model, Data: []byte(payload), Header: header})
	if err != nil {
		p.t.Fatal(err)
	}
	return ack.Sequence
}

func withID(id string) nats.Header { return nats.Header{schemas.HeaderRequestID: {id}} }

func acme(id string) schemas.Identity { return schemas.Identity{Tenant: "acme", Request: id} }

// poll waits until done returns true.
func (p *pipeline) poll(what string, done func() bool) {
	p.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-p.ctx.Done():
			p.t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (p *pipeline) messages(stream string) uint64 {
	p.t.Helper()
	s, err := p.js.Stream(p.ctx, stream)
	if err != nil {
		p.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// work waits for the only item in LLM_WORK at a sequence.
func (p *pipeline) work(sequence uint64) *schemas.Work {
	p.t.Helper()
	var w *schemas.Work
	p.poll("work item "+strconv.FormatUint(sequence, 10), func() bool {
		s, err := p.js.Stream(p.ctx, schemas.StreamWork)
		if err != nil {
			p.t.Fatal(err)
		}
		msg, err := s.GetMsg(p.ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return false
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if w, err = schemas.DecodeWork(strings.TrimPrefix(msg.Subject, "llm.work."), schemas.Header(msg.Header), msg.Data); err != nil {
			p.t.Fatal(err)
		}
		return true
	})
	return w
}

// wantAnswer waits for the error of a request and for its result.
func (p *pipeline) wantAnswer(id string, code schemas.Code, status schemas.Status) *schemas.Result {
	p.t.Helper()
	var kinds []schemas.Kind
	for f, err := range p.bus.Read(p.ctx, acme(id), bus.ReadOptions{}) {
		if err != nil {
			p.t.Fatalf("read %s: %v", id, err)
		}
		if kinds = append(kinds, f.Kind); !f.Kind.Terminal() {
			continue
		}
		e, err := schemas.DecodeError(f.Data)
		if err != nil || e.Code != code {
			p.t.Errorf("answer to %s = %s, want code %s", id, f.Data, code)
		}
		if s, err := schemas.DecodeSummary(f.Summary); err != nil || s.Status != status {
			p.t.Errorf("summary of %s = %s, %v; want status %s", id, f.Summary, err, status)
		}
	}
	if len(kinds) == 0 || kinds[len(kinds)-1] != schemas.KindError {
		p.t.Errorf("frames of %s = %v, want an error at the end", id, kinds)
	}
	var result *schemas.Result
	p.poll("the result of "+id, func() (ok bool) {
		r, err := p.bus.Result(p.ctx, acme(id))
		result = r
		return err == nil
	})
	if result.Status != status {
		p.t.Errorf("result of %s has status %s, want %s", id, result.Status, status)
	}
	p.wantAllSettled()
	return result
}

func (p *pipeline) wantAllSettled() {
	p.t.Helper()
	p.poll("the requests to be acked", func() bool { return p.messages(schemas.StreamRequests) == 0 })
}

// wantBuried checks the last record in the DLQ.
func (p *pipeline) wantBuried(subject, payload, reason string) {
	p.t.Helper()
	s, err := p.js.Stream(p.ctx, schemas.StreamDLQ)
	if err != nil {
		p.t.Fatal(err)
	}
	msg, err := s.GetLastMsgForSubject(p.ctx, subject)
	if err != nil {
		p.t.Fatalf("no record under %s: %v", subject, err)
	}
	if got := string(msg.Data); got != payload {
		p.t.Errorf("DLQ payload = %q, want %q", got, payload)
	}
	if got := msg.Header.Get(schemas.HeaderReason); !strings.Contains(got, reason) {
		p.t.Errorf("DLQ reason = %q, want it to contain %q", got, reason)
	}
}

// worker says where it stands, again and again, as a worker does.
type worker struct {
	p    *pipeline
	name string
	mu   sync.Mutex
	now  schemas.ModelBeat
}

func (p *pipeline) worker(name string, m schemas.ModelBeat) *worker {
	p.t.Helper()
	w := &worker{p: p, name: name, now: m}
	ctx, cancel := context.WithCancel(p.t.Context())
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			w.beat()
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	p.t.Cleanup(func() { cancel(); beating.Wait() })
	return w
}

// becomes changes what the worker says, and says it.
func (w *worker) becomes(m schemas.ModelBeat) {
	w.mu.Lock()
	w.now = m
	w.mu.Unlock()
	w.beat()
}

func (w *worker) beat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.p.bus.Beat(&schemas.Heartbeat{V: 1, Worker: w.name, Models: []schemas.ModelBeat{w.now}}); err != nil {
		w.p.t.Errorf("beat: %v", err)
	}
}

func TestBarePublishIsDispatchedUnderItsSequence(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	before := time.Now()
	sequence := p.publish("anything", body, nil)
	w := p.work(1)
	if got, want := w.Identity, acme(schemas.SequenceID(sequence)); got != want {
		t.Errorf("identity = %v, want %v", got, want)
	}
	if w.ModelToken != "m" || string(w.Body) != body || w.Dispatch != 1 {
		t.Errorf("work item = %+v: want model m of the body, dispatch 1 and the body untouched", w)
	}
	if after := w.Deadline.Sub(w.Accepted); after < schemas.DefaultDeadline-time.Second || after > schemas.DefaultDeadline+time.Second || w.Accepted.Before(before.Add(-time.Minute)) {
		t.Errorf("deadline is %v after acceptance at %v, want %v", after, w.Accepted, schemas.DefaultDeadline)
	}
	p.wantAllSettled()
}

func TestBadRequestsAreAnsweredAndBuried(t *testing.T) {
	p := setup(t)
	p.route()
	tooLong := strings.Repeat("x", schemas.MaxTokenBytes+1)
	tests := []struct {
		name, model, payload string
		header               nats.Header
		id                   string // of the answer; empty: that of the sequence
		code                 schemas.Code
		dlq                  string
	}{
		{"garbage", "m", "\x00garbage", withID("order-1"), "order-1", schemas.CodeInvalidJSON, "m"},
		{"no body and no id", "m", "", nil, "", schemas.CodeInvalidJSON, "m"},
		{"no messages", "m", `{"model":"m"}`, withID("order-2"), "order-2", schemas.CodeMissingParameter, "m"},
		{"no model", "m", `{"messages":[{"role":"user","content":"hi"}]}`, withID("order-3"), "order-3", schemas.CodeMissingParameter, "m"},
		{"id too long", "m", body, withID(tooLong), "", schemas.CodeInvalidValue, "m"},
		{"id with a wildcard", "m", body, withID("a.*"), "", schemas.CodeInvalidValue, "m"},
		{"reserved id", "m", body, withID("s17"), "", schemas.CodeInvalidValue, "m"},
		{"model not encoded", "a:b", body, withID("order-4"), "order-4", schemas.CodeInvalidValue, "a:b"},
		{"bad deadline", "m", body, nats.Header{schemas.HeaderDeadline: {"soon"}}, "", schemas.CodeInvalidValue, "m"},
		{"too deep", "m", `{"model":"m","messages":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, withID("order-5"), "order-5", schemas.CodeInvalidJSON, "m"},
		{"duplicate key", "m", `{"model":"m","model":"n","messages":[{"role":"user","content":"hi"}]}`, withID("order-6"), "order-6", schemas.CodeInvalidJSON, "m"},
		{"empty model", "m", `{"model":"","messages":[{"role":"user","content":"hi"}]}`, withID("order-7"), "order-7", schemas.CodeMissingParameter, "m"},
		{"empty messages", "m", `{"model":"m","messages":[]}`, withID("order-8"), "order-8", schemas.CodeMissingParameter, "m"},
		{"too large", "m", "", nats.Header{schemas.HeaderRequestID: {"order-9"}, schemas.HeaderObject: {fmt.Sprintf("acme/order-9/w/0 %d %064d", schemas.MaxBodyBytes+1, 0)}}, "order-9", schemas.CodeRequestTooLarge, "m"},
		{"object of another tenant", "m", "", nats.Header{schemas.HeaderObject: {"other/r/w/0 5 " + strings.Repeat("0", 64)}}, "", schemas.CodeInvalidValue, "m"},
	}
	for _, test := range tests {
		sequence := p.publish(test.model, test.payload, test.header)
		if test.id == "" {
			test.id = schemas.SequenceID(sequence)
		}
		t.Log(test.name)
		result := p.wantAnswer(test.id, test.code, schemas.StatusRejected)
		p.wantBuried("llm.dlq.acme."+test.dlq, test.payload, string(test.code))
		if test.payload != "" && len(result.Request)+len(result.RequestRaw) == 0 {
			t.Error("the result does not hold the request")
		}
	}
	if got, want := p.messages(schemas.StreamDLQ), uint64(len(tests)); got < want { // more when an acknowledgement came late
		t.Errorf("%d records in the DLQ, want %d", got, want)
	}
	if got := p.messages(schemas.StreamWork); got != 0 {
		t.Errorf("%d work items, want none", got)
	}
}

// A body that is not what its reference says is answered at once, and never read when it is larger.
func TestDamagedBodyObject(t *testing.T) {
	p := setup(t)
	p.route()
	store, err := p.js.ObjectStore(p.ctx, schemas.BucketObjects)
	if err != nil {
		t.Fatal(err)
	}
	for id, size := range map[string]int{"digest": 5, "larger": 6} {
		name := "acme/" + id + "/w/0"
		if _, err := store.PutBytes(p.ctx, name, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		p.publish("m", "", nats.Header{schemas.HeaderRequestID: {id}, schemas.HeaderObject: {fmt.Sprintf("%s 5 %064d", name, 0)}})
		p.wantAnswer(id, schemas.CodeInvalidValue, schemas.StatusRejected)
	}
}

func TestATenantThatCannotBeNamedIsBuried(t *testing.T) {
	p := setup(t)
	p.route()
	tenant := strings.Repeat("x", schemas.MaxTokenBytes+1)
	if _, err := p.js.Publish(p.ctx, "llm.requests."+tenant+".m", []byte(body)); err != nil {
		t.Fatal(err)
	}
	p.wantAllSettled()
	p.wantBuried("llm.dlq."+tenant+".m", body, "tenant")
	if got := p.messages(schemas.StreamResults) + p.messages(schemas.StreamReplies); got != 0 {
		t.Errorf("%d frames and results for nobody", got)
	}
}

func TestExpiredRequest(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m"}) // without room
	past := strconv.FormatInt(time.Now().Add(-time.Second).UnixMilli(), 10)
	p.publish("m", body, nats.Header{schemas.HeaderRequestID: {"late"}, schemas.HeaderDeadline: {past}})
	p.wantAnswer("late", schemas.CodeDeadline, schemas.StatusExpired)
	soon := strconv.FormatInt(time.Now().Add(300*time.Millisecond).UnixMilli(), 10)
	// An accepted frame is no claim.
	if _, err := p.bus.Append(p.ctx, acme("soon"), 0, &schemas.Frame{Kind: schemas.KindAccepted, Writer: "door", BodyHash: schemas.BodyHash([]byte(body))}); err != nil {
		t.Fatal(err)
	}
	p.publish("m", body, nats.Header{schemas.HeaderRequestID: {"soon"}, schemas.HeaderDeadline: {soon}})
	p.wantAnswer("soon", schemas.CodeDeadline, schemas.StatusExpired)
	if got := p.messages(schemas.StreamDLQ) + p.messages(schemas.StreamWork); got != 0 {
		t.Errorf("%d work items and DLQ records, want none", got)
	}
}

func TestUnknownModelIsAnswered(t *testing.T) {
	p := setup(t)
	p.route()
	p.publish("m", strings.Replace(body, `"m"`, `"gpt-9"`, 1), withID("order-1"))
	result := p.wantAnswer("order-1", schemas.CodeModelNotFound, schemas.StatusRejected)
	if got := string(result.Error); !strings.Contains(got, `"param":"model"`) || !strings.Contains(got, "use m") {
		t.Errorf("error = %s: want the parameter and the models there are", got)
	}
	if got := p.messages(schemas.StreamDLQ); got != 0 {
		t.Errorf("%d DLQ records: the request was understood", got)
	}
}

func TestAnErrorNeverEntersAClaimedChain(t *testing.T) {
	p := setup(t)
	frames := []*schemas.Frame{
		{Kind: schemas.KindStart, Attempt: 1, Writer: "abc", Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 1, Dispatch: 1, Worker: "w1"}},
		{Kind: schemas.KindDelta, Attempt: 1, Writer: "abc", Count: 1, Data: []byte(`{}`)},
	}
	var last uint64
	for _, f := range frames {
		var err error
		if last, err = p.bus.Append(p.ctx, acme("order-1"), last, f); err != nil {
			t.Fatal(err)
		}
	}
	p.route()
	p.publish("m", "garbage", withID("order-1"))
	p.wantAllSettled()
	p.wantBuried("llm.dlq.acme.m", "garbage", string(schemas.CodeInvalidJSON))
	chain, err := p.bus.Chain(p.ctx, acme("order-1"))
	if err != nil {
		t.Fatal(err)
	}
	if len(chain.Frames) != len(frames) {
		t.Errorf("the chain has %d frames, want the worker's %d", len(chain.Frames), len(frames))
	}
	if _, err := p.bus.Result(p.ctx, acme("order-1")); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("result: %v, want none", err)
	}
}

func TestAnswerWithoutResultGetsItsResult(t *testing.T) {
	p := setup(t)
	// A router died after the frame and before the result.
	reason := schemas.Errorf(schemas.CodeInvalidJSON, "not JSON")
	if _, err := p.bus.Append(p.ctx, acme("order-1"), 0, &schemas.Frame{
		Kind: schemas.KindError, Writer: "dead", Data: reason.Encode(), Summary: (&schemas.Summary{Status: schemas.StatusRejected}).Encode(),
	}); err != nil {
		t.Fatal(err)
	}
	p.route()
	p.publish("m", "garbage", withID("order-1"))
	p.wantAnswer("order-1", schemas.CodeInvalidJSON, schemas.StatusRejected)
}

func TestAUsedIDWithAnotherBodyIsBuried(t *testing.T) {
	p := setup(t)
	p.route()
	first := &schemas.Result{V: schemas.Version, Tenant: "acme", RequestID: "order-1", Model: "m", Op: schemas.OpChat, Accepted: time.Now(), Status: schemas.StatusCompleted}
	first.SetRequest([]byte(body))
	if err := p.bus.PutResult(p.ctx, first); err != nil {
		t.Fatal(err)
	}
	p.publish("m", body, withID("order-1")) // the same again is no mistake
	p.wantAllSettled()
	if got := p.messages(schemas.StreamDLQ); got != 0 {
		t.Fatalf("%d records in the DLQ, want none", got)
	}
	other := strings.Replace(body, `"m"`, `"m","seed":7`, 1)
	p.publish("m", other, withID("order-1"))
	p.wantAllSettled()
	p.wantBuried("llm.dlq.acme.m", other, "used for another body")
}

func TestSmuggledHeadersStayOutside(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	p.publish("m", body, nats.Header{
		schemas.HeaderRequestID: {"order-1"}, schemas.HeaderPriority: {"batch"}, schemas.HeaderTraceParent: {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		"Nats-Stream": {"LLM_REPLIES"}, "Nats-Sequence": {"1"}, "Nats-Trace-Dest": {"evil"}, "Status": {"503"},
		"Llm-Tenant": {"other"}, "Llm-Dispatch": {"9"}, "Llm-Accepted": {"1"}, "Llm-Frame": {"end 1 x 0 0"}, "Llm-Cache-Key": {"k"}, "X-Other": {"x"},
	})
	w := p.work(1)
	if w.Identity != acme("order-1") || w.Dispatch != 1 || w.Priority != schemas.PriorityBatch || time.Since(w.Accepted) > time.Minute {
		t.Errorf("work item = %+v: a smuggled header was believed", w)
	}
	s, err := p.js.Stream(p.ctx, schemas.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetMsg(p.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"Status", "Nats-Trace-Dest", "Llm-Frame", "Llm-Cache-Key", "X-Other"} {
		if msg.Header.Get(key) != "" {
			t.Errorf("the work item carries %s", key)
		}
	}
	if !strings.Contains(msg.Header.Get(schemas.HeaderTraceParent), "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("traceparent = %q: want the caller's trace", msg.Header.Get(schemas.HeaderTraceParent))
	}
}

func TestRoomOfTwoWorkers(t *testing.T) {
	p := setup(t)
	p.route()
	w1 := p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 1})
	w2 := p.worker("w2", schemas.ModelBeat{Model: "m", Slots: 1})
	var want []string
	for range 4 {
		want = append(want, schemas.SequenceID(p.publish("m", body, nil)))
	}
	var got []string
	take := func(n uint64) { got = append(got, p.work(n).Identity.Request) }
	take(1)
	take(2)
	slices.Sort(got) // they were dispatched at once
	w1.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Used: 1, Held: []uint64{1}})
	w2.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Used: 1, Held: []uint64{2}})
	if n := p.messages(schemas.StreamWork); n != 2 {
		t.Errorf("%d work items for two slots", n)
	}
	w2.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Released: []uint64{2}})
	take(3)
	if n := p.messages(schemas.StreamWork); n != 3 {
		t.Errorf("%d work items when one more slot became free, want 3", n)
	}
	w1.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Released: []uint64{1}})
	take(4)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order of dispatch (-want +got):\n%s", diff)
	}
	p.wantAllSettled()
}

// A tenant with a backlog holds nobody up, and what is urgent goes first, decided when a slot becomes free.
func TestFloodHoldsNobodyUp(t *testing.T) {
	p := setup(t)
	p.route()
	w := p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 1, Used: 1, Held: []uint64{1000}})
	for range 20 {
		p.publish("m", body, nil)
	}
	p.poll("the flood to wait", func() bool { return p.queued() == 20 })
	late := nats.Header{schemas.HeaderRequestID: {"late"}}
	if _, err := p.js.PublishMsg(p.ctx, &nats.Msg{Subject: "llm.requests.other.m", Data: []byte(body), Header: late}); err != nil {
		t.Fatal(err)
	}
	urgent := withID("urgent")
	urgent[schemas.HeaderPriority] = []string{string(schemas.PriorityInteractive)}
	p.publish("m", body, urgent)
	p.poll("all to wait", func() bool { return p.queued() == 22 })
	var got []string
	for n := range uint64(4) {
		w.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Released: []uint64{n}})
		got = append(got, p.work(n+1).Identity.Request)
		w.becomes(schemas.ModelBeat{Model: "m", Slots: 1, Used: 1, Held: []uint64{n + 1}})
	}
	if got[0] != "urgent" || !slices.Contains(got[1:3], "late") {
		t.Errorf("order of dispatch: %v", got)
	}
}

func TestDrainGivesBackWhatIsQueued(t *testing.T) {
	p := setup(t)
	stop := p.route()
	p.publish("m", body, withID("order-1"))
	p.poll("the request to be delivered", func() bool { return p.ackPending() == 1 })
	stop()
	began := time.Now()
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 1})
	if got := p.work(1).Identity; got != acme("order-1") {
		t.Errorf("dispatched %v", got)
	}
	t.Logf("dispatched %v after the restart", time.Since(began))
}

// queued is how many requests the router says that it has waiting.
func (p *pipeline) queued() int {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "weir_router_queued_requests" {
			return int(family.GetMetric()[0].GetGauge().GetValue())
		}
	}
	return 0
}

func (p *pipeline) ackPending() (n int) {
	p.t.Helper()
	for partition := range schemas.Partitions {
		c, err := p.js.Consumer(p.ctx, schemas.StreamRequests, schemas.RouterConsumer(partition))
		if err != nil {
			p.t.Fatal(err)
		}
		n += c.CachedInfo().NumAckPending
	}
	return n
}

func (p *pipeline) redeliveries() (n int) {
	p.t.Helper()
	for partition := range schemas.Partitions {
		c, err := p.js.Consumer(p.ctx, schemas.StreamRequests, schemas.RouterConsumer(partition))
		if err != nil {
			p.t.Fatal(err)
		}
		n += c.CachedInfo().NumRedelivered
	}
	return n
}

func TestQueuedRequestKeepsItsLease(t *testing.T) {
	t.Parallel()
	const lease = 2 * bustest.Lease // with room for a machine that does nothing for seconds
	p := setupOn(t, bustest.Server(t), bus.Config{Lease: lease})
	p.route()
	p.publish("m", body, withID("order-1"))
	began := time.Now()
	p.poll("two leases to pass", func() bool {
		if n := p.redeliveries(); n > 0 {
			t.Fatalf("redelivered after %v although it is held", time.Since(began))
		}
		return time.Since(began) > 2*lease+time.Second
	})
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 1})
	p.work(1)
	p.wantAllSettled()
}

func TestCancelOfAQueuedRequestIsAnswered(t *testing.T) {
	p := setup(t)
	p.route()
	p.publish("m", body, withID("order-1"))
	p.poll("the request to be delivered", func() bool { return p.ackPending() == 1 })
	reason := schemas.Errorf(schemas.CodeCancelled, "the caller cancelled")
	if err := p.bus.CancelRequest(p.ctx, acme("order-1"), reason); err != nil {
		t.Fatal(err)
	}
	p.wantAnswer("order-1", schemas.CodeCancelled, schemas.StatusCancelled)
}

func TestSecondRequestUnderOneID(t *testing.T) {
	p := setup(t)
	p.route()
	p.publish("m", "garbage", withID("order-1"))
	p.wantAnswer("order-1", schemas.CodeInvalidJSON, schemas.StatusRejected)
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	p.publish("m", body, withID("order-1"))
	p.wantAllSettled()
	if got := p.messages(schemas.StreamWork); got != 0 {
		t.Errorf("%d work items: the id has its one result", got)
	}
}

func TestLargeBody(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	large := strings.Replace(body, "hi", strings.Repeat("long ", schemas.InlineBytes/4), 1)
	r := &schemas.Request{Identity: acme("order-1"), ModelToken: "m", Body: []byte(large)}
	if _, err := p.bus.Accept(p.ctx, r); err != nil {
		t.Fatal(err)
	}
	w := p.work(1)
	got, err := p.bus.Body(p.ctx, &w.Request)
	if err != nil || w.Object == nil || string(got) != large {
		t.Errorf("the body did not arrive by reference: object %v, %d bytes, %v", w.Object, len(got), err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	b := new(bus.Bus)
	for _, test := range []struct {
		cfg  router.Config
		want string
	}{
		{router.Config{Name: "r"}, "no bus"},
		{router.Config{Bus: b}, "name"},
		{router.Config{Bus: b, Name: "a b"}, "name"},
		{router.Config{Bus: b, Name: "r", Partitions: []int{4}}, "partition 4"},
		{router.Config{Bus: b, Name: "r", MaxQueued: -1}, "negative"},
	} {
		if _, err := router.New(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New(%+v) = %v, want an error with %q", test.cfg, err, test.want)
		}
	}
}
