package keys

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/telemetry"
)

// lookAgain is how long a timer is trusted to know when a key expires.
const lookAgain = time.Minute

// Run keeps the ring up to date until ctx ends: with what changes in the store, and with what time ends.
func (r *Ring) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() { r.expire(ctx) })
	if r.store == nil {
		<-ctx.Done()
		return nil
	}
	if err := r.store.Watch(ctx, r.apply); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch the API keys: %w", err)
	}
	return nil
}

// apply takes in what the store says.
func (r *Ring) apply(change bus.KeyChange) {
	var ended []ending
	r.mu.Lock()
	if change.All {
		there := make(map[string]bool, len(change.Entries))
		for _, e := range change.Entries {
			there[e.ID] = true
		}
		for id := range r.ids {
			if !there[id] {
				ended = append(ended, r.replace(id, nil)...)
			}
		}
	}
	for _, e := range change.Entries {
		ended = append(ended, r.take(e)...)
	}
	if change.All && !r.ready {
		r.ready = true
		close(r.listed)
	}
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
	r.finish(ended)
}

// ending is a life to end once the lock is free.
type ending struct {
	life   *life
	reason error
}

func (r *Ring) finish(ended []ending) {
	if len(ended) == 0 {
		return
	}
	for _, e := range ended {
		e.life.end(e.reason)
	}
	r.notify()
}

// take needs mu. Whatever an entry says, it is a key: one that cannot be read lets nobody in and closes the door.
func (r *Ring) take(e bus.KeyEntry) (ended []ending) {
	if e.Value == nil {
		return r.replace(e.ID, nil)
	}
	if r.anonymous.ctx.Err() == nil {
		ended, r.closed = append(ended, ending{r.anonymous, ErrClosed}), time.Now()
	}
	record, err := DecodeRecord(e.ID, e.Value)
	if err != nil {
		r.log.Warn("an API key cannot be used", "key", e.ID, telemetry.KeyError, err)
		return append(ended, r.replace(e.ID, nil)...)
	}
	return append(ended, r.replace(e.ID, r.secrets(record))...)
}

// secrets needs mu. A secret that goes on as it was keeps its life, and with it whoever came in by it.
func (r *Ring) secrets(record *Record) (now []*secret) {
	at := time.Now()
	for i := range record.Secrets {
		stored := &record.Secrets[i]
		h, err := parseHash(stored.Hash)
		if err != nil {
			continue // DecodeRecord has looked
		}
		s := &secret{hash: h, key: Key{
			ID: record.ID, Secret: stored.Name(), Tenant: record.Tenant, Models: record.Models, Scope: record.Scope, Expires: stored.Expires,
		}}
		switch {
		case !stored.Revoked.IsZero():
			s.end = ErrRevoked
		case s.expired(at):
			s.end = ErrExpired
		default:
			s.key.life = r.lifeOf(s)
		}
		now = append(now, s)
	}
	return now
}

func (r *Ring) lifeOf(s *secret) *life {
	for _, before := range r.ids[s.key.ID] {
		if before.hash == s.hash && before.end == nil && before.key.life.ctx.Err() == nil && sameRights(&before.key, &s.key) {
			return before.key.life
		}
	}
	return newLife()
}

func sameRights(a, b *Key) bool {
	return a.Tenant == b.Tenant && a.Scope == b.Scope && strings.Join(a.Models, "\x00") == strings.Join(b.Models, "\x00")
}

// replace needs mu. It gives the lives that no secret of the id has any more.
func (r *Ring) replace(id string, secrets []*secret) (ended []ending) {
	kept := map[*life]bool{}
	why := map[hash]error{}
	for _, s := range secrets {
		kept[s.key.life] = true
		why[s.hash] = s.end
	}
	for _, before := range r.ids[id] {
		if before.end != nil || kept[before.key.life] {
			continue
		}
		reason := why[before.hash]
		if reason == nil {
			reason = ErrRevoked
		}
		ended = append(ended, ending{before.key.life, reason})
	}
	if secrets == nil {
		delete(r.ids, id)
	} else {
		r.ids[id] = secrets
	}
	return ended
}

// expire ends what time ends, at the moment it does.
func (r *Ring) expire(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-timer.C:
		}
		ended, next := r.due(time.Now())
		r.finish(ended)
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(min(max(time.Until(next), 0), lookAgain)) // the clock may be set meanwhile
		}
	}
}

// due gives the lives that have expired, and when the next one will.
func (r *Ring) due(now time.Time) (ended []ending, next time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	look := func(s *secret) {
		switch {
		case s.end != nil || s.key.Expires.IsZero() || s.key.life.ctx.Err() != nil:
		case s.expired(now):
			ended = append(ended, ending{s.key.life, ErrExpired})
		case next.IsZero() || s.key.Expires.Before(next):
			next = s.key.Expires
		}
	}
	for _, s := range r.configured {
		look(s)
	}
	for _, secrets := range r.ids {
		for _, s := range secrets {
			look(s)
		}
	}
	return ended, next
}
