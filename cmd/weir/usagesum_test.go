package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// usageRows calls weir usage --json.
func usageRows(t *testing.T, args ...string) (rows []usageRow) {
	t.Helper()
	out, stderr, err := call(t, append([]string{"usage", "--json"}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for line := range strings.Lines(out) {
		var row usageRow
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

// TestUsageOfAServer sums up real requests, from the database and, where that is not, from the log.
func TestUsageOfAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := limitedServer(t, dir, "  acme: {weight: 2}\n", "acme", "other")
	var prompt, completion int64
	var ids []string
	for _, tenant := range []string{"acme", "acme", "other"} {
		a := serve.as(t, tenant, toChat, unaryChat)
		if a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		var answer struct{ Usage schemas.Usage }
		if err := json.Unmarshal([]byte(a.body), &answer); err != nil || answer.Usage.PromptTokens == 0 {
			t.Fatalf("%v: %s", err, a.body)
		}
		prompt, completion = answer.Usage.PromptTokens, answer.Usage.CompletionTokens
		ids = append(ids, a.Header.Get("X-Request-Id"))
	}
	for n, id := range ids {
		serve.record(t, []string{"acme", "acme", "other"}[n], id)
	}
	cost := func(n int64) string {
		return schemas.Money((prompt*500_000 + completion*1_000_000) * n * 1000).String()
	}
	row := func(tenant string, n int64) usageRow {
		return usageRow{Tenant: tenant, Requests: n, Prompt: n * prompt, Completion: n * completion, Total: n * (prompt + completion), Cost: cost(n), Currency: "USD"}
	}
	want := []usageRow{row("acme", 2), row("other", 1)}

	var got []usageRow
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !cmp.Equal(got, want); { // until the sink has kept them
		got = usageRows(t, "--data-dir", dir, "--by", "tenant")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of the database (-want +got)\n%s", diff)
	}
	elsewhere := []string{"--data-dir", t.TempDir(), "--context", filepath.Join(dir, "nats", "context", "weir.json")}
	if diff := cmp.Diff(want, usageRows(t, append(elsewhere, "--by", "tenant")...)); diff != "" {
		t.Errorf("of the log (-want +got)\n%s", diff)
	}
	for _, source := range [][]string{{"--data-dir", dir}, elsewhere} {
		all := usageRows(t, append(source, "--tenant", "acme", "--since", "1h")...)
		requests := int64(0)
		for _, r := range all { // two when it was midnight just now
			requests += r.Requests
			if r.Tenant != "acme" || r.Model != "echo" || r.Day == "" {
				t.Errorf("%+v", r)
			}
		}
		if requests != 2 {
			t.Errorf("%d requests of acme: %+v", requests, all)
		}
		if late := usageRows(t, append(source, "--since", "1ns")...); len(late) != 0 {
			t.Errorf("within a nanosecond: %+v", late)
		}
	}
}

// TestUsageTable shows what a person sees, and sums what is not asked for apart.
func TestUsageTable(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	days := []sink.Day{
		{Day: first, Tenant: "acme", Model: "m", Currency: "USD", Requests: 3, Failed: 1, Prompt: 10, Completion: 5, Cost: schemas.MoneyUnit / 4},
		{Day: first, Tenant: "acme", Model: "n\x1b[31m", Requests: 1, Saved: 1},
		{Day: first.AddDate(0, 0, 1), Tenant: "acme", Model: "m", Currency: "USD", Requests: 2, Prompt: 1, Completion: 1, Cost: schemas.MoneyUnit},
		{Day: first.AddDate(0, 0, 1), Tenant: "beta", Model: "m", Currency: "EUR", Requests: 1, Prompt: 7, Cost: 1},
	}
	for by, want := range map[string]string{
		"tenant": `TENANT  REQUESTS  FAILED  SAVED  PROMPT  COMPLETION  TOTAL  COST
acme    6         1       1      11      6           17     1.25 USD
beta    1         0       0      7       0           7      0.000000001 EUR
`,
		"model,day": `DAY         MODEL      REQUESTS  FAILED  SAVED  PROMPT  COMPLETION  TOTAL  COST
2026-11-24  m          3         1       0      10      5           15     0.25 USD
2026-11-24  n\x1b[31m  1         0       1      0       0           0      -
2026-11-25  m          1         0       0      7       0           7      0.000000001 EUR
2026-11-25  m          2         0       0      1       1           2      1 USD
`,
	} {
		var text strings.Builder
		columns := strings.Split(by, ",")
		if err := writeUsage(&text, summed(days, columns), columns); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, text.String()); diff != "" {
			t.Errorf("by %s (-want +got)\n%s", by, diff)
		}
	}
	var text strings.Builder
	if err := writeUsage(&text, nil, nil); err != nil || text.String() != "No request has ended in that time.\n" {
		t.Errorf("%q, %v", text.String(), err)
	}
}
