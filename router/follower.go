package router

import (
	"crypto/rand"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// maxCopyBytes is about how much a copier writes in one frame: less than what would be offloaded.
const maxCopyBytes = schemas.InlineBytes - 16<<10

// follower is a request that is given the events of another.
type follower struct {
	it     *item
	copy   cache.Copy
	router string
	writer string

	// Guarded by the copier's mu.
	flight *flight
	state  followerState
	leave  func() // what the loop does with it, once nothing of it is being written
	whole  bool   // and once it has all events

	// Of whoever has it in hand, which is one at a time.
	next     uint64 // index of the next event
	sequence uint64 // of its last frame
	attempt  int
	led      string           // the leader that its chain names last; empty: none yet
	frames   []*schemas.Frame // what it wrote, without the payloads
	partial  bool             // another process wrote frames before
}

type followerState int

const (
	followerIdle followerState = iota
	followerReady
	followerWriting
	followerGone
)

func newFollower(it *item, router string) *follower {
	return &follower{it: it, router: router, writer: rand.Text()[:12], copy: cache.CopyFor(it.req.Op, it.req.Request, it.accepted)}
}

// goOn takes up a chain that was begun before.
func (f *follower) goOn(chain *bus.Chain) {
	last := chain.Last()
	f.next, f.sequence, f.attempt, f.led, f.partial = chain.Next(), last.Sequence, last.Attempt, chain.Leader(), true
}

// task is the next step of a follower.
type task struct {
	kind   schemas.Kind     // of the frame to write; empty: nothing is to be written
	leader string           // of a start
	events []cache.Template // of a delta
	ended  *schemas.Frame   // of a terminal frame: the leader's
	leave  func()           // instead of a write
}

// task is what there is to do. The copier's mu is held.
func (f *follower) task() (t task) {
	fl := f.flight
	switch {
	case f.leave != nil && (!f.whole || f.next >= fl.next()):
		t.leave = f.leave
	case !fl.open:
	case f.led != fl.led:
		t.kind, t.leader = schemas.KindStart, fl.led
	case f.next < fl.next():
		t.kind, t.events = schemas.KindDelta, within(fl.events[f.next-fl.base:])
	case fl.ended != nil:
		t.kind, t.ended = fl.ended.Kind, fl.ended
	}
	return t
}

// within is as many events as go into one frame, and at least one.
func within(events []cache.Template) []cache.Template {
	size := 0
	for i := range events {
		if size += events[i].Size(); size > maxCopyBytes && i > 0 {
			return events[:i:i]
		}
	}
	return events[:len(events):len(events)]
}

// frame is what a task writes.
func (f *follower) frame(t task) *schemas.Frame {
	r := f.it.req
	out := &schemas.Frame{Kind: t.kind, Attempt: f.attempt, Writer: f.writer, Index: f.next}
	switch t.kind {
	case schemas.KindStart:
		out.Attempt++
		out.Allowance = f.it.allowance
		out.Op, out.BodyHash, out.Trace = r.Op, r.BodyHash(), bus.TraceParent(f.it.ctx)
		out.Cache = &schemas.CacheNote{Status: schemas.CacheCoalesced}
		out.Start = &schemas.Start{Mode: schemas.ModeFollow, Dispatch: firstDispatch, Worker: f.router, Leader: t.leader}
		if r.Op == schemas.OpResponses {
			out.Start.Accepted = f.it.accepted
		}
	case schemas.KindDelta:
		out.Data, out.Count = say(t.events, f.copy), len(t.events)
	default:
		f.finish(out, t.ended)
	}
	return out
}

// finish fills in a terminal frame like the leader's, less what only the leader's run cost.
func (f *follower) finish(out, ended *schemas.Frame) {
	out.Op, out.Trace = f.it.req.Op, bus.TraceParent(f.it.ctx)
	summary := &schemas.Summary{Status: schemas.StatusFailed}
	encoded := ended.Summary
	if ended.Kind == schemas.KindEnd && ended.Count == 0 {
		encoded = ended.Data
	}
	if s, err := schemas.DecodeSummary(encoded); err == nil {
		summary = &schemas.Summary{Status: s.Status, FinishReasons: s.FinishReasons, Usage: s.Usage, Model: s.Model, CancelledBy: s.CancelledBy}
	} else if ended.Kind == schemas.KindEnd {
		summary.Status = schemas.StatusCompleted
	}
	summary.Attempts = f.attempt
	switch {
	case ended.Kind == schemas.KindError:
		out.Data, out.Summary = ended.Data, summary.Encode()
	case ended.Count == 0:
		out.Data = summary.Encode()
	default:
		out.Data, out.Count, out.Summary = say(templates(f.it.req.Op, ended), f.copy), ended.Count, summary.Encode()
	}
}

func templates(op schemas.Op, f *schemas.Frame) []cache.Template {
	all := make([]cache.Template, 0, f.Count)
	for _, event := range f.Events() {
		all = append(all, cache.NewTemplate(op, event))
	}
	return all
}

// say is the events as a copy says them, newline-separated.
func say(events []cache.Template, c cache.Copy) []byte {
	size := len(events)
	for i := range events {
		size += events[i].Size()
	}
	b := make([]byte, 0, size)
	for i := range events {
		if i > 0 {
			b = append(b, '\n')
		}
		b = events[i].Append(b, c)
	}
	return b
}

// wrote notes a frame that is committed.
func (f *follower) wrote(w *schemas.Frame, sequence uint64, now time.Time) {
	w.Sequence, w.Time = sequence, now
	f.sequence, f.attempt, f.next = sequence, w.Attempt, w.Next()
	if w.Start != nil {
		f.led = w.Start.Leader
	}
	noted := *w
	if noted.Kind == schemas.KindDelta {
		noted.Data = nil
	}
	f.frames = append(f.frames, &noted)
}

// chain is what it wrote, with the payloads made anew from all events of the flight.
func (f *follower) chain(events []cache.Template) *bus.Chain {
	for _, w := range f.frames {
		if w.Kind == schemas.KindDelta {
			w.Data = say(events[w.Index:w.Next()], f.copy)
		}
	}
	return &bus.Chain{Frames: f.frames}
}
