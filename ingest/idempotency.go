package ingest

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const headerIdempotencyKey = "Idempotency-Key"

func newWriter() string { return rand.Text()[:12] }

// chosenID is the id that a caller chose or that follows from its idempotency key, or empty. With one, the same request may
// have been sent before.
func chosenID(tenant string, a asked) (string, error) {
	switch {
	case len(a.ids) > 0 && len(a.keys) > 0:
		return "", schemas.Errorf(schemas.CodeInvalidValue, "both %s and %s are given: send one of them", schemas.HeaderRequestID, headerIdempotencyKey)
	case len(a.ids) > 0:
		return a.ids[0], schemas.ValidateCallerID(a.ids[0])
	case len(a.keys) > 0:
		if n := len(a.keys[0]); n == 0 || n > maxKeyBytes {
			return "", schemas.Errorf(schemas.CodeInvalidValue, "%s has %d bytes: 1 to %d are allowed", headerIdempotencyKey, n, maxKeyBytes)
		}
		return schemas.IdempotencyID(tenant, a.keys[0]), nil
	}
	return "", nil
}

// join answers a request that may have been sent before: with the run that is there, or by a run of its own. A run that
// failed before its first token, in a way that may pass, frees the id for the next one.
func (s *Ingest) join(n *submission) error {
	chosen := n.id.Request
	failure := schemas.Errorf(schemas.CodeUnavailable, "every run of this request has failed: choose another id or %s", headerIdempotencyKey)
	for i := range maxReruns {
		id := schemas.RerunID(chosen, i)
		if schemas.ValidateRequestID(id) != nil {
			break // no room for the number: the id keeps its last failure
		}
		n.back.name(id)
		n.request.Identity = n.id
		there, err := s.find(n.ctx, n.id)
		if err != nil {
			return err
		}
		if freed := there.freed(); freed != nil {
			failure = freed
			continue
		}
		return s.joinRun(n, there)
	}
	return failure
}

func (s *Ingest) joinRun(n *submission, there run) error {
	hash := schemas.BodyHash(n.request.Body)
	if known := there.bodyHash(); known != "" && (known != hash || there.op() != n.request.Op) {
		return mismatch(n.id)
	}
	if there.exists() {
		s.attached(n)
	}
	if n.ended = there.ended(); n.ended {
		_, err := n.answer(there.replay(0), nil)
		return err
	}
	if there.exists() {
		s.announce(n.ctx, n.id)
	}
	return n.attend(there.exists(), func() (finished bool, err error) {
		reader, err := s.cfg.Bus.Open(n.ctx, n.id, bus.ReadOptions{})
		if err != nil {
			return true, unreachable(err)
		}
		defer reader.Close()
		if !there.exists() {
			if err := s.acceptNamed(n); err != nil {
				return true, err
			}
		}
		op := n.request.Op
		n.forget()
		finished, err = n.answer(sameBody(reader.Frames(n.ctx), n.id, op, hash), nil)
		if mismatched(err) {
			finished = true // the request is somebody else's: it does not miss this reader
			n.back.attached(false)
		}
		return finished, err
	})
}

func (s *Ingest) attached(n *submission) {
	s.meters.attached.Inc()
	n.back.attached(true)
}

// acceptNamed stores the request and makes it findable. It may have been stored before without having been made so: by a try
// of this very call whose answer was lost, or by an ingest that died. When it was taken up since, the first frame of the chain
// tells whether it was the same request.
func (s *Ingest) acceptNamed(n *submission) error {
	accepted, err := s.accept(n)
	if mismatched(err) {
		return mismatch(n.id)
	}
	if err != nil {
		return err
	}
	first := !accepted.Duplicate
	if accepted.Duplicate { // who stored it may take it for one that nobody reads
		s.readers.share(n.id)
		s.announce(n.ctx, n.id)
	}
	if accepted.Waits {
		told, err := s.tellAccepted(n)
		if err != nil {
			return err
		}
		first = first || told
	}
	if n.placed = first; !first {
		s.attached(n)
	}
	return nil
}

// tellAccepted writes the accepted frame and reports whether it is the first of the chain. Without it the request is accepted
// all the same, and its frames will tell.
func (s *Ingest) tellAccepted(n *submission) (first bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), s.cfg.AcceptTimeout)
	defer cancel()
	_, err = s.cfg.Bus.Append(ctx, n.id, 0, n.acceptedFrame())
	if errors.Is(err, bus.ErrFenced) || errors.Is(err, bus.ErrUnresolved) || ctx.Err() != nil {
		return false, nil
	}
	return err == nil, err
}

// sameBody is all, unless its first frame belongs to a request with another body, or of another op.
func sameBody(all frames, id identity, op schemas.Op, hash string) frames {
	return func(yield func(*schemas.Frame, error) bool) {
		first := true
		for f, err := range all {
			if err == nil && first && f.BodyHash != "" && (f.BodyHash != hash || opOf(f) != op) {
				yield(nil, mismatch(id))
				return
			}
			first = false
			if !yield(f, err) {
				return
			}
		}
	}
}

func mismatched(err error) bool {
	e, ok := errors.AsType[*schemas.Error](err)
	return ok && e.Code == schemas.CodeIdempotencyMismatch
}

func mismatch(id identity) error {
	return schemas.Errorf(schemas.CodeIdempotencyMismatch, "request %s was sent before with another body: choose another id or %s, or send the same body", id.Request, headerIdempotencyKey)
}
