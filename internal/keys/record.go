package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// recordVersion is the version of a stored record. A record of a later one is not used, because it may restrict the key in
// a way that is not known here.
const recordVersion = 1

// maxLive is how many secrets of one id work at once: the old one and the new one of a rotation.
const maxLive = 2

// Record is what LLM_KEYS holds of an id. A revoked one stays, so that it is known that there was a key.
type Record struct {
	Version int       `json:"v"`
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant"`
	Models  []string  `json:"models"`
	Scope   Scope     `json:"scope"`
	Created time.Time `json:"created"`
	Secrets []Secret  `json:"secrets"`
}

// Secret is one secret of an id.
type Secret struct {
	Hash    string    `json:"sha256"` // of the whole key as its owner has it, in hex
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// Name is what a secret is called where it must be told from the other one of its id.
func (s *Secret) Name() string { return s.Hash[:min(len(s.Hash), fingerprint)] }

// States of a secret.
const (
	StateLive    = "live"
	StateExpired = "expired"
	StateRevoked = "revoked"
)

// State is whether the secret works at a time, and if not, why.
func (s *Secret) State(now time.Time) string {
	switch {
	case !s.Revoked.IsZero():
		return StateRevoked
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return StateExpired
	}
	return StateLive
}

func (s *Secret) live(now time.Time) bool { return s.State(now) == StateLive }

// Live reports whether any secret of the id works.
func (r *Record) Live(now time.Time) bool {
	for i := range r.Secrets {
		if r.Secrets[i].live(now) {
			return true
		}
	}
	return false
}

func (r *Record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // times and strings always marshal
	}
	return b
}

// DecodeRecord reads what the store holds of an id.
func DecodeRecord(id string, value []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("key %s: its record is not one that Weir wrote: %w", id, err)
	}
	switch {
	case r.Version != recordVersion:
		return nil, fmt.Errorf("key %s: its record has version %d, this Weir knows %d: use a newer one", id, r.Version, recordVersion)
	case r.ID != id:
		return nil, fmt.Errorf("key %s: its record belongs to %q", id, r.ID)
	}
	for i := range r.Secrets {
		if _, err := parseHash(r.Secrets[i].Hash); err != nil {
			return nil, fmt.Errorf("key %s: %w", id, err)
		}
	}
	key := Key{Tenant: r.Tenant, Models: r.Models, Scope: r.Scope}
	if err := key.validate(); err != nil {
		return nil, fmt.Errorf("key %s: %w", id, err)
	}
	return &r, nil
}

// Configured is a key of the configuration file. It works without LLM_KEYS and changes with a restart only.
type Configured struct {
	ID      string
	SHA256  string // of the key, in hex
	Tenant  string
	Models  []string  // empty for all
	Scope   Scope     // empty for full
	Expires time.Time // zero for never
}

func (c *Configured) key() (Key, hash, error) {
	h, err := parseHash(c.SHA256)
	switch {
	case c.ID == "":
		return Key{}, h, errors.New("give every key an id of its own")
	case err != nil:
		return Key{}, h, err
	case h == hashOf(""):
		return Key{}, h, errors.New("the secret is empty; choose a long random one")
	}
	k := Key{ID: c.ID, Secret: encodeHash(h)[:fingerprint], Tenant: c.Tenant, Models: c.Models, Scope: c.Scope, Expires: c.Expires, life: newLife()}
	if len(k.Models) == 0 {
		k.Models = []string{AllModels}
	}
	if k.Scope == "" {
		k.Scope = ScopeFull
	}
	return k, h, k.validate()
}
