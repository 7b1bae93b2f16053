// Package keys knows who may use Weir: it makes API keys, stores them hashed, and is the one place that verifies one.
//
// A [Ring] holds the keys of LLM_KEYS, which it watches, and those of the configuration file. Both doors ask it: the HTTP
// door for every request, the NATS door for every connection. **A key works within a second of its creation, and what it
// opened ends within a second of its revocation or expiry, in every process and without a restart.** While NATS is away a
// ring goes on with what it knows; before it has seen all keys once it admits nobody on their word.
//
// Without any key anywhere, callers on this machine may come in without one. The first key ends that for good
// (docs/adr/0006).
package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// DefaultTenant is the tenant of every caller while no key exists.
const DefaultTenant = "default"

// AllModels stands for every model in a key's list.
const AllModels = "*"

// maxModels bounds the list of a key, which travels in the permissions of each of its connections.
const maxModels = 64

// Scope is what a key may do within its tenant.
type Scope string

// The scopes.
const (
	ScopeFull  Scope = "full"  // send requests, read and cancel and delete
	ScopeAudit Scope = "audit" // read streams and results; send, cancel and delete nothing
)

// Why a key does not work any more.
var (
	ErrRevoked = errors.New("the API key was revoked")
	ErrExpired = errors.New("the API key has expired")
	// ErrClosed ends what was begun without a key when the first one is made.
	ErrClosed = errors.New("access without an API key has ended: a key exists now")
)

// Key is what a verified secret stands for. It is immutable; Models must not be changed.
type Key struct {
	ID      string   // names the key in logs and events; empty for a caller without a key
	Secret  string   // which of the id's secrets it is: the beginning of its hash, safe to show
	Tenant  string   // whose requests these are
	Models  []string // public names, or AllModels
	Scope   Scope
	Expires time.Time // zero for never

	life *life // nil for a key that cannot end
}

// AllowsModel reports whether the key may name the model.
func (k *Key) AllowsModel(name string) bool {
	return slices.Contains(k.Models, AllModels) || slices.Contains(k.Models, name)
}

// MaySend reports whether the key may do more than read.
func (k *Key) MaySend() bool { return k.Scope == ScopeFull }

// Name names the secret, as `nats server report connections` shows it: <id>/<beginning of the hash>.
func (k *Key) Name() string {
	if k.ID == "" {
		return anonymousName
	}
	return k.ID + "/" + k.Secret
}

// anonymousName is the name of a connection without a key. No key has it, because it has no slash.
const anonymousName = "loopback"

// WhenRevoked calls f once in a goroutine of its own when the key stops working, at once if it has already. The stop
// function must be called when f is not wanted any more, and reports whether it prevented the call.
func (k *Key) WhenRevoked(f func(reason error)) (stop func() bool) {
	if k.life == nil {
		return func() bool { return true }
	}
	ctx := k.life.ctx
	return context.AfterFunc(ctx, func() { f(context.Cause(ctx)) })
}

// life lasts for as long as a secret works. Whoever uses the secret hangs on it.
type life struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func newLife() *life {
	ctx, end := context.WithCancelCause(context.Background())
	return &life{ctx: ctx, end: end}
}

// validate reports why nobody could use such a key.
func (k *Key) validate() error {
	if err := schemas.ValidateTenant(k.Tenant); err != nil {
		return errors.New(schemas.AsError(err).Message)
	}
	if k.Scope != ScopeFull && k.Scope != ScopeAudit {
		return fmt.Errorf("scope %q is not known: use %s or %s", k.Scope, ScopeFull, ScopeAudit)
	}
	if len(k.Models) == 0 || len(k.Models) > maxModels {
		return fmt.Errorf("%d models are listed: name 1 to %d, or %q for all", len(k.Models), maxModels, AllModels)
	}
	for _, model := range k.Models {
		if _, err := schemas.EncodeModel(model); err != nil {
			return errors.New(schemas.AsError(err).Message)
		}
	}
	return nil
}
