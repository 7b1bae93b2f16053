package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/weir-llm/weir/schemas"
)

// DefaultTenant is the tenant of every caller while no key is configured.
const DefaultTenant = "default"

// Key opens the door for a tenant. The secret itself is known to the caller only.
type Key struct {
	ID     string // names the key in logs and metrics
	Hash   string // SHA-256 of the secret, in hex
	Tenant string
}

// keyring finds a key by the full hash of the secret.
type keyring map[[sha256.Size]byte]Key

func newKeyring(keys []Key) (keyring, error) {
	ring := make(keyring, len(keys))
	ids := make(map[string]bool, len(keys))
	for _, key := range keys {
		sum, err := hex.DecodeString(key.Hash)
		switch {
		case key.ID == "" || ids[key.ID]:
			return nil, fmt.Errorf("API key %q: give every key an id of its own", key.ID)
		case err != nil || len(sum) != sha256.Size:
			return nil, fmt.Errorf("API key %q: the hash must be the SHA-256 of the secret in 64 hex digits", key.ID)
		case [sha256.Size]byte(sum) == sha256.Sum256(nil):
			return nil, fmt.Errorf("API key %q: the secret is empty; choose a long random one", key.ID)
		}
		if err := schemas.ValidateTenant(key.Tenant); err != nil {
			return nil, fmt.Errorf("API key %q: %w", key.ID, err)
		}
		if other, taken := ring[[sha256.Size]byte(sum)]; taken {
			return nil, fmt.Errorf("API keys %q and %q have the same secret; give each its own", other.ID, key.ID)
		}
		ids[key.ID], ring[[sha256.Size]byte(sum)] = true, key
	}
	return ring, nil
}

func (k keyring) open() bool { return len(k) == 0 }

// authenticate gives the key that the request presents.
func (k keyring) authenticate(r *http.Request) (Key, error) {
	if k.open() {
		return Key{Tenant: DefaultTenant}, nil
	}
	secret := presented(r.Header)
	if secret == "" {
		return Key{}, schemas.Errorf(schemas.CodeInvalidKey, "no API key given: send it as `Authorization: Bearer <key>` or as `x-api-key`")
	}
	sum := sha256.Sum256([]byte(secret))
	key, found := k[sum]
	// The lookup is by a hash that a caller cannot steer; the comparison settles it in constant time all the same.
	want, _ := hex.DecodeString(key.Hash)
	if !found || subtle.ConstantTimeCompare(want, sum[:]) != 1 {
		return Key{}, schemas.Errorf(schemas.CodeInvalidKey, "the API key is not known here: check it, or ask the operator for one")
	}
	return key, nil
}

const headerAPIKey = "X-Api-Key"

// presented is the secret that a request carries, the way of OpenAI's SDKs or that of Anthropic's.
func presented(h http.Header) string {
	scheme, secret, _ := strings.Cut(h.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && secret != "" {
		return secret
	}
	return h.Get(headerAPIKey)
}
