package storetest

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// testDays sums up as [sink.DayOf] does, for any selection; an erasure changes nothing of it.
func testDays(t *testing.T, open Open) {
	s := start(t, open)
	results := dayRecords()
	put(t, s, results...)
	want := map[string][]sink.Day{"": sumOf(results, "", time.Time{}), "acme": sumOf(results, "acme", time.Time{}), "nobody": nil}
	check := func(when string) {
		t.Helper()
		for tenant, days := range want {
			got, err := s.Days(t.Context(), sink.Query{Tenant: tenant})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(days, got); diff != "" {
				t.Errorf("%s, of %q (-want +got)\n%s", when, tenant, diff)
			}
		}
	}
	check("whole")
	since := Epoch.Add(time.Hour)
	got, err := s.Days(t.Context(), sink.Query{Since: since, Until: Epoch.Add(100 * time.Hour)})
	if diff := gocmp.Diff(sumOf(results, "", since), got); diff != "" || err != nil {
		t.Errorf("since a time: %v (-want +got)\n%s", err, diff)
	}
	if got, err := s.Days(t.Context(), sink.Query{Until: Epoch}); len(got) != 0 || err != nil {
		t.Errorf("before the first: %v, %v", got, err)
	}
	put(t, s, sink.Tombstone(results[0]), sink.Tombstone(results[2]))
	check("after an erasure")
}

// dayRecords are of three days, two tenants and two models, with failures, hits and two currencies, in the order of the sums.
func dayRecords() []*schemas.Result {
	const day = 86_400
	first, second := Record("acme", "a", 0), Record("acme", "b", 1)
	second.Usage.PromptTokens, second.Cost.Amount = 1<<40, 9_000_000*schemas.MoneyUnit
	hit := Record("acme", "hit", 2)
	hit.Cache = schemas.CacheHit
	failed := Record("acme", "failed", 3)
	failed.Status, failed.Cost.Currency = schemas.StatusFailed, "USE" // behind USD
	follower, shared := Record("acme", "follower", 3), Record("acme", "shared", 3)
	follower.Cache, follower.Status = schemas.CacheCoalesced, schemas.StatusCancelled // failed, and not saved
	shared.Cache = schemas.CacheCoalesced
	refused := Record("other", "refused", 4)
	refused.Status, refused.Usage, refused.Cost = schemas.StatusRejected, nil, nil
	model := Record("acme", "model", day)
	model.Model = "a model"
	return []*schemas.Result{first, second, hit, follower, shared, failed, refused, model, Record("acme", "c", day+1), Record("other", "d", 2*day)}
}

// sumOf adds up what is in the order of the sums.
func sumOf(results []*schemas.Result, tenant string, since time.Time) (days []sink.Day) {
	for _, r := range results {
		if tenant != "" && r.Tenant != tenant || r.Accepted.Before(since) {
			continue
		}
		d := sink.DayOf(r)
		if n := len(days); n > 0 && days[n-1].Day.Equal(d.Day) && days[n-1].Tenant == d.Tenant && days[n-1].Model == d.Model && days[n-1].Currency == d.Currency {
			days[n-1].Add(d)
		} else {
			days = append(days, d)
		}
	}
	return days
}
