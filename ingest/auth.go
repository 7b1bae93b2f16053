package ingest

import (
	"net/http"
	"strings"

	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// DefaultTenant is the tenant of every caller while no key exists.
const DefaultTenant = keys.DefaultTenant

// Keyring knows the API keys. *keys.Ring is one.
type Keyring interface {
	// Verify gives the key that a secret stands for, or an error for its holder.
	Verify(secret string) (keys.Key, error)
	// Open reports whether no key exists, so that callers on this machine need none.
	Open() bool
	// Anonymous gives what such a caller may do, or why it needs a key.
	Anonymous() (keys.Key, error)
}

const headerAPIKey = "X-Api-Key"

// authenticate gives the key that the request presents. Without any key anywhere, a caller on this machine needs none and
// may send what it likes: SDKs insist on one. What is a key by its form was made here, and counts as one before the ring
// has heard of it, so that its holder is not let in as a stranger for a moment.
func (s *Ingest) authenticate(r *http.Request) (keys.Key, error) {
	secret := presented(r.Header)
	if s.local && s.keys.Open() && !keys.IsToken(secret) {
		if err := checkCaller(r, s.cors.protection); err != nil {
			return keys.Key{}, err
		}
		return s.keys.Anonymous()
	}
	if secret != "" {
		return s.keys.Verify(secret)
	}
	if _, err := s.keys.Anonymous(); err != nil {
		return keys.Key{}, err
	}
	return keys.Key{}, schemas.Errorf(schemas.CodeInvalidKey, "no API key given: send it as `Authorization: Bearer <key>` or as `x-api-key`")
}

// presented is the secret that a request carries, the way of OpenAI's SDKs or that of Anthropic's.
func presented(h http.Header) string {
	scheme, secret, _ := strings.Cut(h.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && secret != "" {
		return secret
	}
	return h.Get(headerAPIKey)
}

// authorize refuses what the key's scope does not cover. It rests on the method, so that a route that is added later is
// closed to those who may only read.
func authorize(key *keys.Key, method string) error {
	if key.MaySend() || method == http.MethodGet {
		return nil
	}
	return schemas.Errorf(schemas.CodeScope, "the API key has the scope %s, which may read streams and results and nothing else: use a key of scope %s", key.Scope, keys.ScopeFull)
}

// mayUse reports whether the call's key and tenant may use a model.
func (c *call) mayUse(model string) bool {
	return c.key.AllowsModel(model) && (c.s.cfg.MayUse == nil || c.s.cfg.MayUse(c.id.Tenant, model))
}

// allowModel refuses a model that the call's key or tenant may not use. Every route that names one asks.
func (c *call) allowModel(model string) error {
	if c.mayUse(model) {
		return nil
	}
	return schemas.Errorf(schemas.CodeModelNotAllowed, "the API key may not use the model %.128q: name one that GET /v1/models lists, or ask the operator", model).WithParam("model")
}

// keyEnded is the cause for which a call ends whose key does.
type keyEnded struct{ shown *schemas.Error }

func (e keyEnded) Error() string { return e.shown.Error() }

// onKeyEnd ends the call when its key stops working.
func (c *call) onKeyEnd(reason error) {
	c.leave(keyEnded{schemas.Errorf(schemas.CodeInvalidKey, "%w; what came before this is not the whole answer: read on with a key that works", reason)})
}
