package cache_test

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// FuzzIsolation looks for two requests of different tenants, namespaces or meanings that share a key, and for equal ones
// that do not. What is equal is told by another parser.
func FuzzIsolation(f *testing.F) {
	f.Add("acme", "", []byte(greedy), "acme", "", []byte(with(`"user":"u"`)))
	f.Add("acme", "n", []byte(greedy), "acm", "en", []byte(greedy))
	f.Add("acme", "n", []byte(with(`"seed":9007199254740993`)), "acme", "n", []byte(with(`"seed":9007199254740992`)))
	f.Add("a", "b|c", []byte(greedy), "a|b", "c", []byte(with(`"x":[1,2,{"y":"\u00e9"}]`)))
	f.Add("a", "", []byte(with(`"a":1,"a":2`)), "a", "", []byte(with(`"a":2`)))
	f.Add("a", "", []byte(with(`"x":1e0`)), "a", "", []byte(with(`"x":1.0`)))
	f.Fuzz(func(t *testing.T, tenant1, namespace1 string, body1 []byte, tenant2, namespace2 string, body2 []byte) {
		one, ok1 := fuzzed(tenant1, namespace1, body1)
		two, ok2 := fuzzed(tenant2, namespace2, body2)
		if !ok1 || !ok2 {
			return
		}
		equal := tenant1 == tenant2 && namespace1 == namespace2 && cmp.Equal(meaning(t, body1), meaning(t, body2))
		if same := one.String() == two.String(); same != equal {
			t.Errorf("same key: %v, equal: %v\n%q %q %s\n%q %q %s", same, equal, tenant1, namespace1, body1, tenant2, namespace2, body2)
		}
		if one.String() != two.String() && one.Flight() == two.Flight() {
			t.Error("different keys share a run")
		}
	})
}

func fuzzed(tenant, namespace string, body []byte) (cache.Key, bool) {
	parsed, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{})
	if err != nil {
		return cache.Key{}, false
	}
	k, reason := cache.KeyOf(&cache.Request{Tenant: tenant, Namespace: namespace, Op: schemas.OpChat, Parsed: parsed, Sampled: true})
	return k, reason == ""
}

// meaning is a body as encoding/json reads it, less what cannot change an answer.
func meaning(t *testing.T, body []byte) map[string]any {
	var all map[string]any
	if err := json.Unmarshal(body, &all); err != nil {
		t.Fatalf("a body with a key is not JSON: %v", err)
	}
	maps.DeleteFunc(all, func(name string, _ any) bool {
		switch name {
		case "stream", "stream_options", "user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key",
			"prompt_cache_options", "prompt_cache_retention", "priority", "request_id", "session_id", "cache_salt",
			"return_token_ids", "x_previous_response_id":
			return true
		}
		return controlled(name)
	})
	return all
}

// controlled are the members that the door takes out, however they are written.
func controlled(name string) bool {
	parsed, err := openai.ParseRequest(schemas.OpChat, []byte(with(string(must(json.Marshal(name)))+`:{}`)), openai.Policy{})
	return err == nil && string(parsed.Body) == greedy
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}
