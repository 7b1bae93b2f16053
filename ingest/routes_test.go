package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// Whatever routes there are: without a key none answers, an audit key opens those that only read, and a key for one model
// opens no other by any of them. A route that sends something and is not listed here fails the test.
func TestScopesOnEveryRoute(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"/v1/chat/completions":      `{"model":"m","messages":[{"role":"user","content":"x"}]}`,
		"/v1/completions":           `{"model":"m","prompt":"x"}`,
		"/v1/embeddings":            `{"model":"m","input":"x"}`,
		"/v1/responses":             `{"model":"m","input":"x"}`,
		"/v1/messages":              `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`,
		"/v1/messages/count_tokens": `{"model":"m","messages":[{"role":"user","content":"x"}]}`,
	}
	nameless := []string{"/v1/responses/{id}/cancel", "/v1/streams/{id}/cancel"}
	ring, err := keys.New(keys.Config{Configured: []keys.Configured{
		configured("audit", keys.Configured{Scope: keys.ScopeAudit}), configured("other", keys.Configured{Models: []string{"other"}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Bus: &bus.Bus{}, Addr: "127.0.0.1:0", Keys: ring}) // nothing here gets as far as the bus
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	handler := s.handler()
	for _, surface := range s.surfaces() {
		for _, r := range surface.routes {
			ask := func(key string, status int, code schemas.Code) {
				t.Helper()
				path := strings.NewReplacer("{id}", "x", "{id...}", "x").Replace(r.path)
				request := httptest.NewRequest(r.method, path, strings.NewReader(bodies[r.path]))
				request.Header.Set("Authorization", key)
				got := httptest.NewRecorder()
				handler.ServeHTTP(got, request)
				if got.Code != status || !strings.Contains(got.Body.String(), string(code)) {
					t.Errorf("%s %s with %q: %d %s, want %d %s", r.method, r.path, key, got.Code, got.Body, status, code)
				}
			}
			ask("", http.StatusUnauthorized, schemas.CodeInvalidKey)
			ask("Bearer wrong", http.StatusUnauthorized, schemas.CodeInvalidKey)
			if r.method == http.MethodGet {
				continue
			}
			ask("Bearer audit", http.StatusForbidden, schemas.CodeScope)
			if bodies[r.path] != "" {
				ask("Bearer other", http.StatusForbidden, schemas.CodeModelNotAllowed)
			} else if r.method != http.MethodDelete && !strings.Contains(strings.Join(nameless, " "), r.path) {
				t.Errorf("%s %s: say here with which body it names a model", r.method, r.path)
			}
		}
	}
}

// configured is a key whose secret is its id.
func configured(id string, k keys.Configured) keys.Configured {
	sum := sha256.Sum256([]byte(id))
	k.ID, k.SHA256, k.Tenant = id, hex.EncodeToString(sum[:]), "acme"
	return k
}
