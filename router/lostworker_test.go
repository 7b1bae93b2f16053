package router_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// append writes a frame of a request behind what is there.
func (p *pipeline) append(id string, f *schemas.Frame) {
	p.t.Helper()
	chain, err := p.bus.Chain(p.ctx, acme(id))
	if err != nil {
		p.t.Fatal(err)
	}
	f.Index = chain.Next()
	if _, err := p.bus.Append(p.ctx, acme(id), chain.Sequence(), f); err != nil {
		p.t.Fatal(err)
	}
}

// Of what a lost worker ran, others get at once what they can go on with and what nobody else has; the rest waits for its
// lease, which is long here.
func TestWorkOfALostWorkerIsTakenBack(t *testing.T) {
	t.Parallel()
	p := setupOn(t, bustest.Server(t), bus.Config{Lease: time.Minute})
	if err := p.bus.EnsureWorkConsumer(p.ctx, "m"); err != nil {
		t.Fatal(err)
	}
	const unclaimed, fresh, ended, shown, repeatable, taken, done = 1, 2, 3, 4, 5, 6, 7
	lost := p.bus.Work("m")
	defer lost.Close()
	var held []uint64
	for n := range done {
		sequence, err := p.bus.Dispatch(p.ctx, &schemas.Work{
			Request:  schemas.Request{Identity: acme(fmt.Sprint("w-", n+1)), ModelToken: "m", Op: schemas.OpChat, Body: []byte(body)},
			Dispatch: 1, Accepted: time.Now(),
		})
		if err != nil || sequence != uint64(n+1) {
			t.Fatalf("item %d: %v", sequence, err)
		}
		held = append(held, sequence)
	}
	var deliveries []*bus.Delivery
	for len(deliveries) < done {
		batch, err := lost.Fetch(p.ctx, done-len(deliveries))
		if err != nil {
			t.Fatal(err)
		}
		deliveries = append(deliveries, batch...)
	}
	for n := fresh; n <= taken; n++ {
		worker := map[bool]string{true: "other", false: "lost"}[n == taken]
		start := &schemas.Start{Mode: schemas.ModeFresh, Work: uint64(n), Dispatch: 1, Worker: worker}
		p.append(fmt.Sprint("w-", n), &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "W", Start: start})
	}
	for _, n := range []int{ended, shown, repeatable} {
		p.append(fmt.Sprint("w-", n), &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "W", Count: 1, Data: []byte(`{"choices":[]}`)})
	}
	p.append(fmt.Sprint("w-", ended), &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "W", Data: (&schemas.Summary{Status: schemas.StatusCompleted}).Encode()})
	deliveries[done-1].Settle(bus.Ack)

	listens := make(chan struct{}, 64)
	stop, err := p.bus.OnRouterBeat(func(*schemas.RouterBeat) {
		select {
		case listens <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	p.route()
	<-listens // it does not hear what is said before
	if err := p.bus.Beat(&schemas.Heartbeat{V: 1, Worker: "lost", Models: []schemas.ModelBeat{
		{Model: "m", Slots: 8, Used: 7, Held: held, Repeatable: []uint64{repeatable}},
	}}); err != nil {
		t.Fatal(err)
	}
	silent := time.Now()
	next := p.bus.Work("m")
	defer next.Close()
	var got []uint64
	for want := []uint64{unclaimed, fresh, ended, repeatable}; len(got) < len(want); {
		batch, err := next.Fetch(p.ctx, 8)
		if err != nil {
			t.Fatalf("%v came back, then %v", got, err)
		}
		for _, d := range batch {
			got = append(got, d.Sequence)
		}
		if slices.Sort(got); len(got) == len(want) && !cmp.Equal(got, want) {
			t.Errorf("%v came back, want %v", got, want)
		}
	}
	t.Logf("the work was back %v after the last beat", time.Since(silent))
	events, err := p.js.Stream(p.ctx, schemas.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	p.poll("the event", func() bool {
		_, err := events.GetLastMsgForSubject(p.ctx, schemas.EventSubject(schemas.EventTakeover))
		return err == nil
	})
}
