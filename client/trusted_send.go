package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// maxReruns bounds how often a request whose runs failed before their first event is run again, as at the doors.
const maxReruns = 32

func (t *trusted) send(ctx context.Context, r *outgoing) error {
	if r.chosen {
		there, err := t.join(ctx, r)
		if err != nil || there.ended() {
			return err
		}
	}
	certain, err := t.accept(ctx, r, true)
	if err != nil || certain || !r.chosen {
		return err
	}
	return t.confirm(ctx, r)
}

// accept stores the request, unless it was stored before. With findable it leaves a first frame, so that whoever asks for the
// request while it is queued learns that there is one. It is certain to be this one only while it waits.
func (t *trusted) accept(ctx context.Context, r *outgoing, findable bool) (certain bool, err error) {
	accepted, err := t.bus.Accept(ctx, r.Request)
	if err != nil {
		return false, err
	}
	if findable && accepted.Waits {
		frame := &schemas.Frame{Kind: schemas.KindAccepted, Op: r.Op, Writer: rand.Text()[:12], BodyHash: schemas.BodyHash(r.Body), Trace: bus.TraceParent(ctx)}
		// The request is accepted whatever becomes of the frame, and a fence only means that it has begun.
		_, _ = t.bus.Append(ctx, r.Identity, 0, frame)
	}
	return accepted.Waits, nil
}

// confirm waits for what tells that the request which was taken up under the id of r is r.
func (t *trusted) confirm(ctx context.Context, r *outgoing) error {
	for f, err := range t.bus.Read(ctx, r.Identity, bus.ReadOptions{}) {
		if err != nil {
			return err
		}
		if f.BodyHash != "" {
			return r.differs(f.BodyHash, f.Op)
		}
	}
	there, err := t.find(ctx, r.Identity)
	if err != nil {
		return err
	}
	return there.check(r)
}

// own is all, unless a frame tells that the request is not r.
func (r *outgoing) own(all iter.Seq2[*schemas.Frame, error]) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		known := false
		for f, err := range all {
			if err == nil && !known && f.BodyHash != "" {
				known = true
				if err = r.differs(f.BodyHash, f.Op); err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// differs is an error when a request under the id of r that has such a body, of such an op, is another. What is not known is
// taken for the same.
func (r *outgoing) differs(hash string, op schemas.Op) error {
	if hash == "" || hash == schemas.BodyHash(r.Body) && cmp.Or(op, schemas.OpChat) == cmp.Or(r.Op, schemas.OpChat) {
		return nil
	}
	return schemas.ReusedID(r.Identity.Request)
}

// earlier is what the bus holds of a request that may have been sent before. Both parts are empty when it was not.
type earlier struct {
	result *schemas.Result
	chain  *bus.Chain // read only while there is no result
}

func (t *trusted) find(ctx context.Context, id schemas.Identity) (earlier, error) {
	result, err := t.lookUp(ctx, id)
	if err == nil {
		return earlier{result: result, chain: &bus.Chain{}}, nil
	}
	if !errors.Is(err, bus.ErrNotFound) {
		return earlier{}, err
	}
	chain, err := t.chain(ctx, id)
	return earlier{chain: chain}, err
}

// join gives a request whose id was chosen the id of the run that it belongs to: the last one, or the next when that
// failed before its first event in a way that may pass. An error says that the id was used for another body.
func (t *trusted) join(ctx context.Context, r *outgoing) (earlier, error) {
	chosen := r.Identity.Request
	failure := schemas.Errorf(schemas.CodeUnavailable, "every run of this request has failed: choose another id")
	for n := range maxReruns {
		id := schemas.Identity{Tenant: r.Tenant, Request: schemas.RerunID(chosen, n)}
		if id.Validate() != nil {
			break // no room for the number: the id keeps its last failure
		}
		there, err := t.find(ctx, id)
		if err != nil {
			return there, err
		}
		if freed := there.freed(); freed != nil {
			failure = freed
			continue
		}
		r.Identity = id
		return there, there.check(r)
	}
	return earlier{}, failure
}

// ended reports whether the request has a result. One whose chain has ended gets it any moment, and is read meanwhile.
func (e earlier) ended() bool { return e.result != nil }

// freed is the failure of a run that ended before its first event in a way that may pass, or nil.
func (e earlier) freed() *schemas.Error {
	var failed []byte
	switch terminal := e.chain.Terminal(); {
	case e.result != nil && (e.result.Events == nil || e.result.Events.Count == 0):
		failed = e.result.Error
	case terminal != nil && terminal.Kind == schemas.KindError && !e.chain.Visible():
		failed = terminal.Data
	}
	if len(failed) == 0 {
		return nil
	}
	if failure, err := schemas.DecodeError(failed); err == nil && failure.Retryable() {
		return failure
	}
	return nil
}

// check compares the request with the earlier one.
func (e earlier) check(r *outgoing) error {
	if e.result != nil {
		return r.differs(e.result.BodyHash, e.result.Op)
	}
	return r.differs(e.chain.BodyHash(), e.chain.Op())
}
