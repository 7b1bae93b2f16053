package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/router"
)

// A tenant that is not named has what default says of the cache, and one that is named takes nothing from there.
func TestCacheOfTenantsThatAreNotNamed(t *testing.T) {
	c := &Config{Tenants: map[string]Tenant{
		tenantDefault: {Cache: TenantCache{Mode: cacheOn, TTL: Duration(time.Minute), Namespace: "n", Sampled: true}, Coalesce: "off"},
		"named":       {},
	}}
	want := router.CachePolicy{On: true, TTL: time.Minute, Namespace: "n", Sampled: true, Coalesce: coalesceMode("off")}
	if diff := cmp.Diff(want, c.cachePolicy("other")); diff != "" {
		t.Errorf("one that is not named (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(router.CachePolicy{Coalesce: coalesceMode("")}, c.cachePolicy("named")); diff != "" {
		t.Errorf("one that is named (-want +got):\n%s", diff)
	}
}

// What makes other answers makes other keys.
func TestRevisionOfAModel(t *testing.T) {
	base := Backend{Name: "a", Protocol: "triton", URL: "grpc://x:1", Model: "m"}
	revision := func(change func(*Backend)) string {
		b := base
		change(&b)
		return Model{Backends: []Backend{b}}.revision()
	}
	same := revision(func(*Backend) {})
	for name, change := range map[string]func(*Backend){
		"url": func(b *Backend) { b.URL = "grpc://y:1" }, "model": func(b *Backend) { b.Model = "n" }, "template": func(b *Backend) { b.Template = "raw" },
		"max_tokens": func(b *Backend) { b.MaxTokens = 5 }, "protocol": func(b *Backend) { b.Protocol = "grpc" },
	} {
		if revision(change) == same {
			t.Errorf("another %s has the same answers", name)
		}
	}
	if revision(func(b *Backend) { b.Name, b.MaxInFlight, b.Weight = "b", 7, 3 }) != same {
		t.Error("what does not change an answer has the cache begin anew")
	}
}
