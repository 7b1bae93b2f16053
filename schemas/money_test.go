package schemas

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMoney(t *testing.T) {
	for text, want := range map[string]Money{
		"0": 0, "12": 12 * MoneyUnit, "0.15": 150_000_000, "0.000000001": 1, "9000000000": 9_000_000_000 * MoneyUnit, "1.50": 1_500_000_000,
	} {
		got, err := ParseMoney(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseMoney(got.String()); err != nil || again != got {
			t.Errorf("%q comes back from %q as %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1.", ".5", "1e3", "0.0000000001", "1_000", "9300000000", "1.2.3", "1,5", "NaN", " 1"} {
		if got, err := ParseMoney(text); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
	if got := Money(math.MinInt64).String(); got != "-9223372036.854775808" {
		t.Errorf("the least amount is written as %s", got)
	}
}

func TestPriceOf(t *testing.T) {
	price := &Price{Currency: "USD", Input: 2 * MoneyUnit, Output: 8 * MoneyUnit, CachedInput: MoneyUnit / 2, CacheWrite: 3 * MoneyUnit}
	usage := func(prompt, completion int64, details string) *Usage {
		return &Usage{PromptTokens: prompt, CompletionTokens: completion, PromptDetails: json.RawMessage(details)}
	}
	for name, c := range map[string]struct {
		usage *Usage
		want  string
	}{
		"plain":                 {usage(1000, 100, ""), "0.0028 USD"},
		"cached":                {usage(1000, 100, `{"cached_tokens":600}`), "0.0019 USD"},
		"written":               {usage(1000, 0, `{"cached_tokens":200,"cache_write_tokens":300}`), "0.002 USD"},
		"one token":             {usage(1, 0, "null"), "0.000002 USD"},
		"more cached than all":  {usage(10, 0, `{"cached_tokens":1e30,"cache_write_tokens":7}`), "0.000005 USD"},
		"negative":              {usage(-5, -7, `{"cached_tokens":-1}`), "0 USD"},
		"details of other kind": {usage(1000, 0, `[1]`), "0.002 USD"},
		"absurd":                {usage(math.MaxInt64, math.MaxInt64, ""), "4611686018.427387902 USD"},
		"none":                  {nil, ""},
	} {
		if got := price.Of(c.usage).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if (*Price)(nil).Of(usage(1, 1, "")) != nil || (*Price)(nil).Estimate(1, 1) != 0 {
		t.Error("a model without a price costs something")
	}
	if got := price.Estimate(1000, 100); got != 2_800_000 {
		t.Errorf("estimate %d", got)
	}
	if got := (&Price{Input: 75_000_000}).Estimate(3, 0); got != 225 { // 0.075 for a million
		t.Errorf("three tokens cost %d", got)
	}
}

// TestCostKeeps checks that a cost of another writer is read: members that are not known, and amounts that we do not write.
func TestCostKeeps(t *testing.T) {
	for data, want := range map[string]Cost{
		`{"amount":0.25,"currency":"EUR","tax":0.05}`: {Amount: 250_000_000, Currency: "EUR", Extra: Extra{"tax": json.RawMessage(`0.05`)}},
		`{"amount":-1.5}`:   {Amount: -1_500_000_000},
		`{"amount":2.5e-7}`: {Amount: 250},
	} {
		var got Cost
		if err := json.Unmarshal([]byte(data), &got); err != nil {
			t.Errorf("%s: %v", data, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", data, diff)
		}
	}
	for _, data := range []string{`{"amount":"1"}`, `{"amount":1e300}`} {
		if err := json.Unmarshal([]byte(data), new(Cost)); err == nil {
			t.Errorf("%s is read", data)
		}
	}
}
