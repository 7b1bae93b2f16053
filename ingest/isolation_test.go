package ingest_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// These tests attack one tenant, bob, with the credentials of another, ann, at the real server. Each also does the same as
// whoever may, so that an attack that fails for another reason is noticed.

// refused fails the test unless the server refuses what was just done with a subject.
func (c *caller) refused(subject string) {
	c.t.Helper()
	if err := c.conn.FlushTimeout(longEnough); err != nil {
		c.t.Fatal(err)
	}
	for timeout := time.After(longEnough); ; {
		select {
		case err := <-c.errs:
			if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`) {
				return
			}
		case <-timeout:
			c.t.Errorf("the server did not refuse %s", subject)
			return
		}
	}
}

// contents is the last sequence of every stream.
func (n *natsBench) contents() map[string]uint64 {
	n.t.Helper()
	js, err := jetstream.New(n.trusted().conn)
	if err != nil {
		n.t.Fatal(err)
	}
	all := map[string]uint64{}
	list := js.ListStreams(n.t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = info.State.LastSeq
	}
	if list.Err() != nil || len(all) < 8 {
		n.t.Fatalf("streams: %v, %v", all, list.Err())
	}
	return all
}

// hasResult waits for the result of a request that was answered, the last thing to be stored of it.
func (n *natsBench) hasResult(tenant, request string) {
	n.t.Helper()
	eventually(n.t, "the result of "+request, func() bool {
		_, err := n.bus.Result(n.t.Context(), schemas.Identity{Tenant: tenant, Request: request})
		return err == nil
	})
}

// unchanged fails the test when a stream has more than before.
func (n *natsBench) unchanged(before map[string]uint64) {
	n.t.Helper()
	if diff := cmp.Diff(before, n.contents()); diff != "" {
		n.t.Errorf("something was stored (-before +after):\n%s", diff)
	}
}

// silent fails the test when something has come.
func silent(t *testing.T, sub *nats.Subscription) {
	t.Helper()
	if n, _, err := sub.Pending(); err != nil || n > 0 {
		msg, _ := sub.NextMsg(time.Second)
		t.Errorf("%s has %d messages: %v (%v)", sub.Subject, n, msg, err)
	}
}

// The attack surface is a list of subjects, so it is tried as one: whatever is not the tenant's own cannot be published to.
func TestIsolationOfPublishing(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	ann, trusted := n.tenant("ann"), n.trusted()
	before := n.contents()
	stored := []string{ // by a stream, when a trusted service publishes there
		"llm.requests.ann.m", "llm.requests.bob.m", "llm.chunks.ann.r1", "llm.chunks.bob.r1", "llm.results.ann.r1", "llm.work.m",
		"llm.cache.ann._.k", "llm.retry.hold.x", "llm.retry.due.x", "llm.dlq.ann.m", "llm.events.x", "$KV.LLM_KEYS.k", "$KV.LLM_LIMITS.k",
		"$O.LLM_OBJECTS.C.x",
	}
	heard := []string{ // by whoever listens
		"llm.chat.bob.m", "llm.resume.bob.r1", "llm.cancel.bob.r1", "llm.chat.ann.m.x", "llm.chat.ann", "llm.chat", "llm.queue.0.ann.m",
		"llm.replies.ann.r1", "llm.replies.bob.r1", "llm.attach.ann.r1", "llm.attach.bob.r1", "llm.workers.w", "llm.routers.r",
		"_INBOX_ann.x", "_INBOX_bob.x", "_INBOX_pipe.x", "_INBOX.x", "$SRV.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING",
		"$JS.API.INFO", "_R_.x.y", "ann", "llm.CHAT.ann.m", "llm.*.ann.m",
	}
	for _, subject := range append(stored, heard...) {
		for _, to := range []string{"", "_INBOX_ann.reply"} {
			ann.send(subject, to, bareStream)
			ann.refused(subject)
		}
	}
	n.unchanged(before)
	for _, subject := range stored {
		if ack, err := trusted.conn.Request(subject, []byte(bareStream), longEnough); err != nil || jetError(ack.Data) != 0 {
			t.Errorf("a trusted service cannot publish to %s: %v, %s", subject, err, ack.Data)
		}
	}
	ann.ask("llm.chat.ann.m", bareStream).wantsEvents(t, 0, 1)
}

// Nor can anything be listened to that is not the tenant's own, by wildcard or in a queue group.
func TestIsolationOfSubscribing(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(2))
	ann, bob := n.tenant("ann"), n.tenant("bob")
	var subs []*nats.Subscription
	for _, subject := range []string{
		">", "*", "*.>", "llm.>", "llm.*.*.*", "llm.replies.>", "llm.replies.*.*", "llm.replies.bob.*", "llm.replies.bob.r1", "llm.replies.bob.>",
		"llm.chunks.ann.*", "llm.chunks.>", "llm.results.ann.*", "llm.results.>", "llm.requests.>", "llm.queue.>", "llm.work.*",
		"llm.chat.ann.*", "llm.chat.bob.*", "llm.chat.>", "llm.resume.>", "llm.cancel.>", "llm.cancel.ann.*", "llm.workers.*", "llm.events.*", "llm.attach.>",
		"_INBOX.>", "_INBOX_bob.>", "_INBOX_bob.x", "_INBOX_pipe.>", "_INBOX_ann", "*.*", "$SRV.>", "$SYS.>", "$JS.>", "$JS.EVENT.>", "$KV.>", "$O.>", "_R_.>",
	} {
		for _, group := range []string{"", "weir", "other"} {
			subject := subject
			sub, err := ann.conn.QueueSubscribeSync(subject, group)
			if group == "" {
				sub, err = ann.conn.SubscribeSync(subject)
			}
			if err != nil {
				t.Fatal(err)
			}
			subs = append(subs, sub)
			if group != "" {
				subject += `" using queue "` + group
			}
			ann.refused(subject)
		}
	}
	own, err := bob.conn.SubscribeSync("llm.replies.bob.*")
	if err != nil {
		t.Fatal(err)
	}
	bob.ask("llm.chat.bob.m", bareStream, "Llm-Request-Id", "r1").wantsEvents(t, 0, 2)
	ann.ask("llm.chat.ann.m", bareStream).wantsEvents(t, 0, 2)
	if msg := next(t, own); msg.Header.Get(schemas.HeaderNatsSequence) == "" {
		t.Errorf("the first message of bob's log is %v", msg.Header)
	}
	for _, sub := range subs {
		if n, _, err := sub.Pending(); err == nil && n > 0 {
			t.Errorf("%s has %d messages", sub.Subject, n)
		}
	}
}

// An answer goes nowhere but to the tenant's own inbox: otherwise ann could write, as ingest, where she cannot herself.
func TestIsolationOfReplies(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	accepted := make(chan string, 64)
	n := setupNATS(t, func(j *job) {
		accepted <- j.request.Tenant
		j.start()
		j.delta(1)
		if j.request.Tenant == "bob" {
			j.wait(gate)
		}
		j.delta(1)
		j.end()
	})
	ann, bob := n.tenant("ann"), n.tenant("bob")
	id := schemas.Identity{Tenant: "bob", Request: "r1"}
	answer := bob.open("llm.chat.bob.m", bareStream, "Llm-Request-Id", id.Request)
	first := next(t, answer)
	<-accepted
	mine := ann.ask("llm.chat.ann.m", bareStream).id()
	<-accepted
	var live []*nats.Subscription
	for _, subject := range schemas.EdgeSubscribe("bob") {
		sub, err := bob.conn.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		live = append(live, sub)
	}
	if err := bob.conn.FlushTimeout(longEnough); err != nil {
		t.Fatal(err)
	}
	n.hasResult("ann", mine)
	before := n.contents()
	for _, to := range []string{
		id.Replies(), "llm.replies.bob.new", id.Chunks(), id.Result(), "llm.requests.bob.m", "llm.chat.bob.m", "llm.cancel.bob.r1", "llm.resume.bob.r1",
		answer.Subject, "_INBOX_bob.x", "_INBOX_bob.*", "_INBOX_bob.>", "_INBOX_ann", "_INBOX_ann.", "_INBOX_ann.>", "_INBOX_ann.*", "_INBOX_ann.x.>", "_INBOX_annex.x",
		"_INBOX.x", "_INBOX_pipe.x", "$SRV.PING", "$JS.API.STREAM.PURGE.LLM_REPLIES", "$JS.API.STREAM.DELETE.LLM_REPLIES", "llm.replies.ann." + mine,
	} {
		for subject, body := range map[string]string{
			"llm.chat.ann.m": bareStream, "llm.chat.ann.other": "no JSON", "llm.resume.ann." + mine: "", "llm.resume.ann.none": "", "llm.cancel.ann.none": "",
		} {
			_ = ann.conn.PublishMsg(&nats.Msg{Subject: subject, Reply: to, Data: []byte(body)}) // some are no subject even for the client
		}
	}
	// The same endpoints with an inbox of her own, behind all of it.
	ann.ask("llm.resume.ann."+mine, "").wantsEvents(t, 0, 2)
	n.unchanged(before)
	if err := bob.conn.FlushTimeout(longEnough); err != nil {
		t.Fatal(err)
	}
	for _, sub := range live {
		silent(t, sub)
	}
	select {
	case tenant := <-accepted:
		t.Errorf("a request of %s was accepted", tenant)
	default:
	}
	close(gate)
	rest, err := collect(answer)
	if err != nil {
		t.Fatal(err)
	}
	append(reply{first}, rest...).wantsEvents(t, 0, 2)
	for _, f := range n.chain(id).Frames {
		if f.Writer != "fake" && f.Kind != schemas.KindAccepted {
			t.Errorf("a frame of bob's is by %s", f.Writer)
		}
	}
}

// What comes with a probe is no way in: the server lets nobody publish there.
func TestIsolationOfProbes(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.delta(1); j.end() })
	ann := n.tenant("ann")
	sub := ann.open("llm.chat.ann.m", bareStream)
	first := next(t, sub)
	if first.Reply == "" {
		t.Fatal("the first message asks nothing")
	}
	ann.send(first.Reply, "", "hello")
	ann.refused(first.Reply)
	close(gate)
	rest, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	append(reply{first}, rest...).wantsEvents(t, 0, 2)
}

// An id belongs to a tenant: nobody can take it before its owner, by name or by the message id of NATS.
func TestIsolationOfIDs(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	ann, bob := n.tenant("ann"), n.tenant("bob")
	squat := []string{"Llm-Tenant", "bob", "Nats-Msg-Id", "bob/order-1"}
	ann.ask("llm.chat.ann.m", bareStream, append(squat, "Llm-Request-Id", "order-1")...).wantsEvents(t, 0, 1)
	ann.ask("llm.chat.ann.m", bareStream, append(squat, "Idempotency-Key", "k")...).wantsEvents(t, 0, 1)
	ann.ask("llm.chat.ann.m", bareStream, append(squat, "Llm-Request-Id", "bob/order-1")...).wantsError(t, "400", "invalid_value")
	for _, header := range [][]string{{"Llm-Request-Id", "order-1"}, {"Idempotency-Key", "k"}} {
		got := bob.ask("llm.chat.bob.m", bareStream+"  ", header...) // another body: attached to ann's it would be a mismatch
		got.wantsEvents(t, 0, 1)
		if chain := n.chain(schemas.Identity{Tenant: "bob", Request: got.id()}); chain.BodyHash() == "" || chain.Terminal() == nil {
			t.Error("bob's request is not in his log")
		}
	}
	// A tenant whose name begins like another's is another.
	n.tenant("bobby").ask("llm.resume.bobby.order-1", "").wantsError(t, "404", "stream_not_found")
	for _, subject := range []string{"llm.resume.ann.*", "llm.resume.ann.>", "llm.cancel.ann.*", "llm.cancel.ann.>"} {
		ann.ask(subject, "").wantsError(t, "404", "stream_not_found")
	}
	ann.ask("llm.chat.ann.*", bareStream).wantsError(t, "400", "invalid_value")
	bob.ask("llm.resume.bob.order-1", "").wantsEvents(t, 0, 1)
}

// A header that makes JetStream do something does so for a trusted service, and nothing for a tenant.
func TestIsolationOfControlHeaders(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	ann, trusted := n.tenant("ann"), n.trusted()
	for name, value := range map[string]string{
		"Nats-TTL": "1s", "Nats-Rollup": "all", "Nats-Expected-Stream": "OTHER", "Nats-Expected-Last-Sequence": "999",
		"Nats-Expected-Last-Subject-Sequence": "999", "Nats-Expected-Last-Msg-Id": "x", "Nats-Batch-Id": "b", "Nats-Required-Api-Level": "999",
		"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "llm.work.m", "Nats-Incr": "+1",
	} {
		ack, err := trusted.conn.RequestMsg(&nats.Msg{Subject: "llm.requests.ann.m", Header: nats.Header{name: {value}}, Data: []byte(bareStream)}, longEnough)
		if err != nil || jetError(ack.Data) == 0 && name != "Nats-Schedule-Target" && name != "Nats-Required-Api-Level" {
			t.Errorf("%s does nothing for a trusted service, so its absence proves nothing: %v, %s", name, err, ack.Data)
		}
		got := ann.ask("llm.chat.ann.m", bareStream, name, value, "Nats-Batch-Sequence", "1", "Nats-Batch-Commit", "1")
		got.wantsEvents(t, 0, 1)
		if chain := n.chain(schemas.Identity{Tenant: "ann", Request: got.id()}); chain.Terminal() == nil {
			t.Errorf("%s: the answer is not kept", name)
		}
	}
}

// A trace tells of connections and accounts: a trusted service may have one, a tenant gets nothing.
func TestIsolationOfTraces(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	trace := func(c *caller) *nats.Subscription {
		sub, err := c.conn.SubscribeSync(c.conn.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		c.send("llm.chat.ann.m", "", "", "Nats-Trace-Dest", sub.Subject, "Nats-Trace-Only", "true")
		return sub
	}
	next(t, trace(n.trusted()))
	ann := n.tenant("ann")
	spied := trace(ann)
	ann.refused(spied.Subject)
	for _, to := range []string{"llm.replies.ann.x", "_INBOX_bob.x"} {
		ann.send("llm.chat.ann.m", "", "", "Nats-Trace-Dest", to)
		ann.refused(to)
	}
	ann.ask("llm.chat.ann.m", bareStream, "Nats-Trace-Dest", "llm.chat.ann.x").wantsEvents(t, 0, 1) // she may publish there, but not listen
	silent(t, spied)
}

// Account EDGE has no JetStream: no call of its API is possible, in no form.
func TestIsolationOfJetStream(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	ann, bob, trusted := n.tenant("ann"), n.tenant("bob"), n.trusted()
	request := bob.ask("llm.chat.bob.m", bareStream).id()
	n.hasResult("bob", request)
	before := n.contents()
	js, err := jetstream.New(ann.conn)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := contextFor(t, 500*time.Millisecond)
	defer cancel()
	if _, err := js.AccountInfo(short); err == nil {
		t.Error("ann has an account in JetStream")
	}
	ann.refused("$JS.API.INFO")
	last := `{"last_by_subj":"llm.replies.bob.` + request + `"}`
	consumer := `{"stream_name":"LLM_REPLIES","config":{"deliver_subject":"_INBOX_bob.x","filter_subject":"llm.replies.ann.>","ack_policy":"none"}}`
	calls := map[string]string{
		"$JS.API.INFO": "", "$JS.API.STREAM.NAMES": "", "$JS.API.STREAM.LIST": "", "$JS.API.STREAM.INFO.LLM_REPLIES": "",
		"$JS.API.STREAM.MSG.GET.LLM_REPLIES":                           last,
		"$JS.API.DIRECT.GET.LLM_REPLIES":                               last,
		"$JS.API.DIRECT.GET.LLM_REPLIES.llm.replies.bob." + request:    "",
		"$JS.API.CONSUMER.CREATE.LLM_REPLIES":                          consumer,
		"$JS.API.CONSUMER.CREATE.LLM_REPLIES.spy.llm.replies.ann.>":    consumer,
		"$JS.API.CONSUMER.NAMES.LLM_REPLIES":                           "",
		"$JS.API.CONSUMER.INFO.LLM_REQUESTS.router_0":                  "",
		"$JS.API.CONSUMER.MSG.NEXT.LLM_REQUESTS.router_0":              "1",
		"$JS.API.CONSUMER.DELETE.LLM_REQUESTS.router_0":                "",
		"$JS.API.STREAM.PURGE.LLM_REPLIES":                             "",
		"$JS.API.STREAM.DELETE.LLM_REPLIES":                            "",
		"$JS.API.STREAM.CREATE.SPY":                                    `{"name":"SPY","subjects":["llm.replies.>"]}`,
		"$JS.ACK.LLM_REQUESTS.router_0.1.1.1.1700000000000000000.0":    "+ACK",
		"$JS.ACK._.hash.LLM_REQUESTS.router_0.1.1.1.1700000000000.0.x": "+NAK",
		"$JS.API.META.LEADER.STEPDOWN":                                 "",
	}
	inbox, err := ann.conn.SubscribeSync("_INBOX_ann.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range slices.Sorted(maps.Keys(calls)) {
		ann.send(subject, inbox.Subject, calls[subject])
		ann.refused(subject)
	}
	silent(t, inbox)
	n.unchanged(before)
	for _, subject := range []string{"$JS.API.INFO", "$JS.API.STREAM.MSG.GET.LLM_REPLIES", "$JS.API.DIRECT.GET.LLM_REPLIES", "$JS.API.CONSUMER.INFO.LLM_REQUESTS.router_0"} {
		if got, err := trusted.conn.Request(subject, []byte(calls[subject]), longEnough); err != nil || jetError(got.Data) != 0 || got.Header.Get("Status") != "" {
			t.Errorf("a trusted service cannot call %s: %v, %v", subject, got, err)
		}
	}
}
