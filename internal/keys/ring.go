package keys

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// Watcher tells what LLM_KEYS holds and what changes in it. *bus.KeyStore is one.
type Watcher interface {
	// Watch calls fn with all entries first, and with all of them again whenever it may have missed one, else with each
	// change. Calls do not overlap. It returns when ctx ends.
	Watch(ctx context.Context, fn func(bus.KeyChange)) error
}

// Config of a [Ring].
type Config struct {
	Store      Watcher      // optional: without it there are only the configured keys
	Configured []Configured // keys of the configuration file
	Logger     *slog.Logger // optional
}

// Ring verifies keys. It is safe for concurrent use; Run keeps it up to date.
type Ring struct {
	store      Watcher
	log        *slog.Logger
	configured map[hash]*secret // fixed
	listed     chan struct{}    // closed once all keys are known
	changed    chan struct{}    // wakes Run when the next expiry may be another

	mu        sync.RWMutex
	ready     bool // listed is closed
	ids       map[string][]*secret
	anonymous *life     // of callers without a key; its end is that of open access, for good
	closed    time.Time // when that was
	listeners map[int]func()
	nextID    int
}

// secret is one that works, or that did: who presents it is told why it does not work any more.
type secret struct {
	hash hash
	key  Key
	end  error // why it does not work, nil while it does
}

// New makes a ring. With a store it knows the keys in it only once Run has listed them.
func New(cfg Config) (*Ring, error) {
	r := &Ring{
		store: cfg.Store, log: cfg.Logger, configured: map[hash]*secret{}, listed: make(chan struct{}), changed: make(chan struct{}, 1),
		ids: map[string][]*secret{}, anonymous: newLife(), listeners: map[int]func(){},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	taken := map[string]bool{}
	for i := range cfg.Configured {
		c := &cfg.Configured[i]
		key, h, err := c.key()
		if err == nil && taken[c.ID] {
			err = errors.New("give every key an id of its own")
		}
		if err != nil {
			return nil, fmt.Errorf("API key %q: %w", c.ID, err)
		}
		if other := r.configured[h]; other != nil {
			return nil, fmt.Errorf("API keys %q and %q have the same secret; give each its own", other.key.ID, c.ID)
		}
		taken[c.ID] = true
		r.configured[h] = &secret{hash: h, key: key}
	}
	if len(r.configured) > 0 {
		r.anonymous.end(ErrClosed)
	}
	if r.store == nil {
		r.ready = true
		close(r.listed)
	}
	return r, nil
}

// Listed is closed once the ring knows all keys.
func (r *Ring) Listed() <-chan struct{} { return r.listed }

// Open reports whether no key exists anywhere, nor existed since the ring was made, so that callers on this machine need
// none. It is false until all keys are known.
func (r *Ring) Open() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ready && r.anonymous.ctx.Err() == nil
}

// Anonymous admits a caller without a key while the ring is open. The caller must be on this machine.
func (r *Ring) Anonymous() (Key, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	switch {
	case r.anonymous.ctx.Err() != nil:
		return Key{}, schemas.Errorf(schemas.CodeInvalidKey, "no API key given: send it as `Authorization: Bearer <key>`, as `x-api-key`, or as the token of a NATS connection")
	case !r.ready:
		return Key{}, notListed()
	}
	return Key{Tenant: DefaultTenant, Models: []string{AllModels}, Scope: ScopeFull, life: r.anonymous}, nil
}

// Verify gives the key that a text is. Errors are those of the caller, and a service_unavailable until all keys are
// known: then a key that is not known yet is not known to be wrong.
func (r *Ring) Verify(text string) (Key, error) {
	if len(text) > maxTokenBytes {
		return Key{}, unknown(ErrMalformed)
	}
	h := hashOf(text)
	// The lookup is by the full hash, which a caller cannot steer.
	if s := r.configured[h]; s != nil {
		return s.admit(time.Now())
	}
	token, err := ParseToken(text)
	if err != nil {
		return Key{}, unknown(err)
	}
	r.mu.RLock()
	secrets, ready := r.ids[token.ID], r.ready
	r.mu.RUnlock()
	var found *secret
	for _, s := range secrets { // always all, so that the time tells nothing about which one is near
		if subtle.ConstantTimeCompare(s.hash[:], h[:]) == 1 {
			found = s
		}
	}
	switch {
	case found != nil:
		return found.admit(time.Now())
	case !ready:
		return Key{}, notListed()
	}
	return Key{}, unknown(nil)
}

// admit is lock-free: a secret is replaced, never changed, once others can see it.
func (s *secret) admit(now time.Time) (Key, error) {
	end := s.end
	if end == nil && s.expired(now) {
		end = ErrExpired
	}
	if end != nil {
		return Key{}, schemas.Errorf(schemas.CodeInvalidKey, "%w: ask the operator for a new one", end)
	}
	return s.key, nil
}

func (s *secret) expired(now time.Time) bool {
	return !s.key.Expires.IsZero() && !now.Before(s.key.Expires)
}

func unknown(cause error) error {
	if cause != nil {
		return schemas.Errorf(schemas.CodeInvalidKey, "the API key is %w: copy it again, or ask the operator for one", cause)
	}
	return schemas.Errorf(schemas.CodeInvalidKey, "the API key is not known here: check it, or ask the operator for one")
}

func notListed() error {
	return schemas.Errorf(schemas.CodeUnavailable, "the API keys are not loaded yet. Please try again in 1s.").WithRetryAfter(time.Second)
}

// closingTime is how long connections that came in without a key outlive the first key, for who makes that key over one:
// it has yet to record that it did. They end in the next sweep; nobody comes in any more.
const closingTime = sweepAgain * 4 / 5

// Live reports whether a connection of a user of this name may go on. One that has no [Key.Name] was admitted by
// somebody else, and may; and so may all before all keys are known.
func (r *Ring) Live(name string) bool {
	now := time.Now()
	id, _, named := strings.Cut(name, "/")
	r.mu.RLock()
	defer r.mu.RUnlock()
	switch {
	case !r.ready:
		return true
	case name == anonymousName:
		return r.anonymous.ctx.Err() == nil || now.Sub(r.closed) < closingTime
	case !named:
		return true
	}
	lives := func(s *secret) bool { return s.key.Name() == name && s.end == nil && !s.expired(now) }
	for _, s := range r.configured {
		if lives(s) {
			return true
		}
	}
	return slices.ContainsFunc(r.ids[id], lives)
}

// OnEnd calls fn after some key, or open access, has ended, until stop is called. Calls may overlap; fn must not block.
func (r *Ring) OnEnd(fn func()) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextID
	r.nextID++
	r.listeners[id] = fn
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, id)
	}
}

// notify must not be called with mu held.
func (r *Ring) notify() {
	r.mu.RLock()
	listeners := slices.Collect(maps.Values(r.listeners))
	r.mu.RUnlock()
	for _, fn := range listeners {
		fn()
	}
}
