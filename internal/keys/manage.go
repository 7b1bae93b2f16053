package keys

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// What was done to a key, in its event.
const (
	actionCreated = "created"
	actionRotated = "rotated"
	actionRevoked = "revoked"
)

// event tells in LLM_EVENTS what was done to a key. It holds no secret; the beginning of a hash names one.
type event struct {
	Version int       `json:"v"`
	Action  string    `json:"action"`
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant"`
	Models  []string  `json:"models"`
	Scope   Scope     `json:"scope"`
	Secrets []string  `json:"secrets"`
	Expires time.Time `json:"expires,omitzero"`
	Actor   string    `json:"actor,omitempty"`
	Time    time.Time `json:"time"`
}

// Manager makes and revokes keys in the store.
type Manager struct {
	Bus   *bus.Bus // required
	Actor string   // who does it, for the event: user@host
}

// Request is what a new key should be able to do.
type Request struct {
	Tenant  string
	Models  []string  // empty for all
	Scope   Scope     // empty for full
	Expires time.Time // zero for never
}

// Create makes a key with an id of its own. The token is known to nobody but the caller.
func (m *Manager) Create(ctx context.Context, want Request) (Token, *Record, error) {
	if len(want.Models) == 0 {
		want.Models = []string{AllModels}
	}
	if want.Scope == "" {
		want.Scope = ScopeFull
	}
	key := Key{Tenant: want.Tenant, Models: want.Models, Scope: want.Scope}
	if err := key.validate(); err != nil {
		return Token{}, nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err := checkExpiry(want.Expires, now); err != nil {
		return Token{}, nil, err
	}
	if err := m.Bus.Keys().Ensure(ctx); err != nil {
		return Token{}, nil, err
	}
	for {
		token := NewToken(newID())
		record := &Record{
			Version: recordVersion, ID: token.ID, Tenant: want.Tenant, Models: want.Models, Scope: want.Scope, Created: now,
			Secrets: []Secret{newSecret(token, now, want.Expires)},
		}
		err := m.Bus.Keys().Create(ctx, record.ID, record.encode())
		if errors.Is(err, bus.ErrConflict) {
			continue // the id is taken
		}
		if err != nil {
			return Token{}, nil, err
		}
		return token, record, m.tell(ctx, actionCreated, record, record.Secrets)
	}
}

// Rotate gives an id a second secret. Both work until one is revoked or expires.
func (m *Manager) Rotate(ctx context.Context, id string, expires time.Time) (token Token, record *Record, err error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err := checkExpiry(expires, now); err != nil {
		return Token{}, nil, err
	}
	token = NewToken(id)
	added := newSecret(token, now, expires)
	record, err = m.change(ctx, id, func(r *Record) error {
		if !slices.ContainsFunc(r.Secrets, func(s Secret) bool { return s.Revoked.IsZero() }) {
			return fmt.Errorf("key %s is revoked: create a new one", id)
		}
		r.Secrets = slices.DeleteFunc(r.Secrets, func(s Secret) bool { return !s.live(now) })
		if len(r.Secrets) >= maxLive {
			return fmt.Errorf("key %s has %d live secrets already: end one first with weir keys revoke %s --secret %s", id, maxLive, id, r.Secrets[0].Name())
		}
		r.Secrets = append(r.Secrets, added)
		return nil
	})
	if err != nil {
		return Token{}, nil, err
	}
	return token, record, m.tell(ctx, actionRotated, record, []Secret{added})
}

// Revoke ends an id, or with a name only that secret of it. What is revoked already is no error.
func (m *Manager) Revoke(ctx context.Context, id, secret string) (*Record, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	var ended []Secret
	record, err := m.change(ctx, id, func(r *Record) error {
		ended = nil
		found := secret == ""
		for i := range r.Secrets {
			s := &r.Secrets[i]
			if secret != "" && s.Name() != secret {
				continue
			}
			found = true
			if s.Revoked.IsZero() {
				s.Revoked = now
				ended = append(ended, *s)
			}
		}
		if !found {
			return fmt.Errorf("key %s has no secret %q: weir keys list shows them", id, secret)
		}
		return nil
	})
	if err != nil || len(ended) == 0 {
		return record, err
	}
	return record, m.tell(ctx, actionRevoked, record, ended)
}

// List gives the records of all keys, the oldest first. What cannot be read is left out and told in the error, beside the
// others.
func (m *Manager) List(ctx context.Context) ([]*Record, error) {
	entries, err := m.Bus.Keys().List(ctx)
	if err != nil {
		return nil, err
	}
	var records []*Record
	var unreadable []error
	for _, e := range entries {
		record, err := DecodeRecord(e.ID, e.Value)
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b *Record) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return records, errors.Join(unreadable...)
}

// change writes what edit makes of a record, on top of whatever others write meanwhile.
func (m *Manager) change(ctx context.Context, id string, edit func(*Record) error) (*Record, error) {
	if token, err := ParseToken(id); err == nil { // shown on a terminal and in logs, where no secret belongs
		return nil, fmt.Errorf("that is a whole key, not its id: the id is %s", token.ID)
	}
	if len(id) != idLength || !over(idAlphabet, id) {
		return nil, fmt.Errorf("%q is not the id of a key: it is the part between weir_ and the next _, %d letters and digits", id, idLength)
	}
	for {
		entry, err := m.Bus.Keys().Get(ctx, id)
		if err != nil {
			return nil, err
		}
		record, err := DecodeRecord(id, entry.Value)
		if err != nil {
			return nil, err
		}
		if err := edit(record); err != nil {
			return nil, err
		}
		err = m.Bus.Keys().Update(ctx, id, record.encode(), entry.Revision)
		if err == nil {
			return record, nil
		}
		if !errors.Is(err, bus.ErrConflict) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// ErrUntold says that a key was made or revoked, and only its event is missing.
var ErrUntold = errors.New("it is done, but the event that tells so was not stored")

func (m *Manager) tell(ctx context.Context, action string, r *Record, secrets []Secret) error {
	e := event{
		Version: 1, Action: action, ID: r.ID, Tenant: r.Tenant, Models: r.Models, Scope: r.Scope, Actor: m.Actor, Time: time.Now().UTC(),
	}
	for i := range secrets {
		e.Secrets = append(e.Secrets, secrets[i].Name())
		e.Expires = secrets[i].Expires
	}
	data, err := json.Marshal(e)
	if err == nil {
		err = m.Bus.Record(ctx, schemas.EventKeys, data)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntold, err)
	}
	return nil
}

func newSecret(token Token, now, expires time.Time) Secret {
	if !expires.IsZero() {
		expires = expires.UTC()
	}
	return Secret{Hash: encodeHash(hashOf(token.Reveal())), Created: now, Expires: expires}
}

func checkExpiry(expires, now time.Time) error {
	if !expires.IsZero() && !expires.After(now) {
		return fmt.Errorf("the expiry %s is in the past: choose a later one", expires.Format(time.RFC3339))
	}
	return nil
}
