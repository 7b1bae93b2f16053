package inference

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func TestUsageOfTenants(t *testing.T) {
	t.Parallel()
	u := newUsage()
	a, b := u.begin("a"), u.begin("b")
	a.tokens.Add(3)
	b.tokens.Add(9)
	u.end(b)
	u.begin("a")
	if diff := cmp.Diff([]schemas.TenantUsage{{Tenant: "b", Tokens: 9}, {Tenant: "a", Running: 2, Tokens: 3}}, u.beat()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]schemas.TenantUsage{{Tenant: "a", Running: 2, Tokens: 3}}, u.beat()); diff != "" {
		t.Errorf("the next beat has no news of b (-want +got)\n%s", diff)
	}
}

// The worker counts for so many tenants, and tells of so many, that nothing grows with their number.
func TestUsageIsBounded(t *testing.T) {
	t.Parallel()
	u := newUsage()
	busy := u.begin("busy")
	for n := range 3 * usageTenants {
		one := u.begin(fmt.Sprint("t", n))
		one.tokens.Add(1)
		u.end(one)
	}
	busy.tokens.Add(2)
	if len(u.tenants) > usageTenants || u.tenants["busy"] != busy {
		t.Errorf("%d tenants are counted, want at most %d and the one that runs among them", len(u.tenants), usageTenants)
	}
	told := u.beat()
	if len(told) != schemas.BeatTenants || told[0].Tenant != "busy" {
		t.Errorf("%d tenants are told of, %v first; want %d and the busiest", len(told), told[0], schemas.BeatTenants)
	}
	if !slices.IsSortedFunc(told, func(a, b schemas.TenantUsage) int { return int(b.Tokens) - int(a.Tokens) }) {
		t.Errorf("%v", told)
	}
}
