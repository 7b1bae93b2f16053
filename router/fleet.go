package router

import (
	"iter"
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

const (
	workerGone = schemas.HeartbeatMisses * schemas.HeartbeatInterval

	// verifyAfter is how long a dispatch may stay unseen before the stream is asked whether it is still there.
	verifyAfter = 2 * time.Second

	// modelLinger is how long a model stays known after its last worker went, so that a restart of the workers makes
	// callers wait instead of telling them that there is no such model.
	modelLinger = time.Minute
)

// fleet is what the heartbeats tell about the workers, and which dispatches no worker has shown yet. Times are local and
// monotonic.
type fleet struct {
	workers    map[string]*worker
	models     map[string]*outstanding
	advertised map[string]time.Time // model: when a worker last said that it serves it

	// Sequences that a beat has shown lately: a worker may take a dispatch before its PubAck is here.
	shown, shownBefore map[uint64]struct{}
	rotated            time.Time
}

type worker struct {
	seen     time.Time
	draining bool
	models   map[string]schemas.ModelBeat
}

// outstanding are the dispatches of a model that take up room without being in a worker's used slots.
type outstanding struct {
	sending int                  // being published
	pending map[uint64]time.Time // published and not yet shown by a beat; since when, or since the last check
}

func newFleet(now time.Time) *fleet {
	return &fleet{
		workers: make(map[string]*worker), models: make(map[string]*outstanding), advertised: make(map[string]time.Time),
		shown: make(map[uint64]struct{}), shownBefore: make(map[uint64]struct{}), rotated: now,
	}
}

// beat takes in a heartbeat and reports whether the worker is new.
func (f *fleet) beat(h *schemas.Heartbeat, now time.Time) (joined bool) {
	w := f.workers[h.Worker]
	if w == nil {
		w, joined = &worker{}, true
		f.workers[h.Worker] = w
	}
	w.seen, w.draining, w.models = now, h.Draining, make(map[string]schemas.ModelBeat, len(h.Models))
	for _, m := range h.Models {
		w.models[m.Model] = m
		f.advertised[m.Model] = now
		f.show(m.Model, m.Held)
		f.show(m.Model, m.Released)
	}
	return joined
}

// show ends the wait for dispatches that a worker holds or has let go.
func (f *fleet) show(model string, sequences []uint64) {
	o := f.models[model]
	for _, sequence := range sequences {
		f.shown[sequence] = struct{}{}
		if o != nil {
			delete(o.pending, sequence)
		}
	}
}

// room is how many more requests of a model may be dispatched: the free slots of its workers less what is on its way.
func (f *fleet) room(model string) int {
	room := 0
	for _, w := range f.workers {
		if m, ok := w.models[model]; ok && !w.draining {
			room += max(0, m.Slots-m.Used)
		}
	}
	if o := f.models[model]; o != nil {
		room -= o.sending + len(o.pending)
	}
	return room
}

// outFor is how long still no worker makes any call for the model; 0 = one may, or none serves it.
func (f *fleet) outFor(model string, now time.Time) time.Duration {
	soonest := time.Duration(0)
	for _, w := range f.workers {
		m, ok := w.models[model]
		if !ok || w.draining {
			continue
		}
		left := time.Duration(m.OutMS)*time.Millisecond - now.Sub(w.seen)
		if m.OutMS == 0 || left <= 0 {
			return 0
		}
		if soonest == 0 || left < soonest {
			soonest = left
		}
	}
	return soonest
}

// sending takes room for a dispatch that is about to be published.
func (f *fleet) sending(model string) { f.outstanding(model).sending++ }

// unsent gives back the room of a dispatch that was not published.
func (f *fleet) unsent(model string) { f.outstanding(model).sending-- }

// sent turns a dispatch into a pending one, unless a worker was faster than its PubAck.
func (f *fleet) sent(model string, sequence uint64, now time.Time) {
	f.unsent(model)
	_, a := f.shown[sequence]
	_, b := f.shownBefore[sequence]
	if !a && !b {
		f.outstanding(model).pending[sequence] = now
	}
}

// forget drops a dispatch that is no longer in LLM_WORK.
func (f *fleet) forget(model string, sequence uint64) {
	if o := f.models[model]; o != nil {
		delete(o.pending, sequence)
	}
}

// unseen yields the dispatches that no beat has shown for a while, each again only after another while.
func (f *fleet) unseen(now time.Time) iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for model, o := range f.models {
			for sequence, since := range o.pending {
				if now.Sub(since) < verifyAfter {
					continue
				}
				o.pending[sequence] = now
				if !yield(model, sequence) {
					return
				}
			}
		}
	}
}

// sweep drops the workers that missed too many beats and returns what they ran. That is pending again: it comes back to
// LLM_WORK, when its lease ends or before, and will take somebody's slot.
func (f *fleet) sweep(now time.Time) (lost []lostWork) {
	for name, w := range f.workers {
		if now.Sub(w.seen) < workerGone {
			continue
		}
		delete(f.workers, name)
		for model, m := range w.models {
			held := f.only(model, m.Held)
			if len(held) > 0 || !w.draining { // one that drained has left in order
				lost = append(lost, lostWork{worker: name, model: model, held: held, repeatable: m.Repeatable})
			}
			for _, sequence := range held {
				f.outstanding(model).pending[sequence] = now
			}
		}
	}
	for model, o := range f.models {
		if o.sending == 0 && len(o.pending) == 0 {
			delete(f.models, model)
		}
	}
	for model, seen := range f.advertised {
		if now.Sub(seen) > modelLinger {
			delete(f.advertised, model)
		}
	}
	if now.Sub(f.rotated) >= verifyAfter {
		f.shown, f.shownBefore, f.rotated = make(map[uint64]struct{}), f.shown, now
	}
	return lost
}

// only is the sequences that no worker shows.
func (f *fleet) only(model string, sequences []uint64) (all []uint64) {
	for _, sequence := range sequences {
		shown := false
		for _, w := range f.workers {
			shown = shown || slices.Contains(w.models[model].Held, sequence)
		}
		if !shown {
			all = append(all, sequence)
		}
	}
	return all
}

// excuse starts the silence of every worker anew, because this router was deaf.
func (f *fleet) excuse(now time.Time) {
	for _, w := range f.workers {
		w.seen = now
	}
	for model := range f.advertised {
		f.advertised[model] = now
	}
}

// serves reports whether a worker serves the model or did so lately.
func (f *fleet) serves(model string) bool {
	_, ok := f.advertised[model]
	return ok
}

func (f *fleet) outstanding(model string) *outstanding {
	o := f.models[model]
	if o == nil {
		o = &outstanding{pending: make(map[uint64]time.Time)}
		f.models[model] = o
	}
	return o
}
