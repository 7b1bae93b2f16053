package schemas

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Money is an amount in billionths of a currency's unit, so that the price of a single token is a whole number and sums
// are exact.
type Money int64

// MoneyUnit is one unit of a currency: a dollar, a euro.
const MoneyUnit Money = 1_000_000_000

// moneyDigits is how many digits an amount has behind the point.
const moneyDigits = 9

// ParseMoney reads a decimal such as 0.15 or 12. It takes at most 9 digits behind the point, and no sign.
func ParseMoney(s string) (Money, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	fits := len(fraction) <= moneyDigits && !strings.HasSuffix(s, ".") && strings.Trim(whole+fraction, "0123456789") == ""
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", max(0, moneyDigits-len(fraction))), 10, 64)
	if whole == "" || !fits || err != nil {
		return 0, fmt.Errorf("%.40q is not an amount: write a number from 0 with at most %d digits behind the point, such as 0.15", s, moneyDigits)
	}
	return Money(n), nil
}

// String is the amount as a decimal, without zeros at its end.
func (m Money) String() string { return string(m.append(nil)) }

func (m Money) append(b []byte) []byte {
	if m < 0 {
		b = append(b, '-')
	}
	n := uint64(max(m, -m))
	if m == math.MinInt64 {
		n = 1 << 63
	}
	b = strconv.AppendUint(b, n/uint64(MoneyUnit), 10)
	if rest := n % uint64(MoneyUnit); rest != 0 {
		digits := strconv.FormatUint(uint64(MoneyUnit)+rest, 10) // a leading 1 keeps the zeros
		b = append(append(b, '.'), strings.TrimRight(digits[1:], "0")...)
	}
	return b
}

// Cost is what a request, or a call of a backend, costs by the price table of the configuration.
type Cost struct {
	Amount   Money
	Currency string

	Extra Extra
}

func (c *Cost) extra() *Extra { return &c.Extra }

func (c *Cost) members(m *members) {
	m.money("amount", &c.Amount)
	m.text("currency", &c.Currency, optional)
}

// MarshalJSON writes the object with its unknown members.
func (c Cost) MarshalJSON() ([]byte, error) { return appendRecord(nil, &c), nil }

// UnmarshalJSON keeps unknown members. They share data.
func (c *Cost) UnmarshalJSON(data []byte) error { return decodeRecord(data, c) }

// String is the amount with its currency.
func (c *Cost) String() string {
	if c == nil {
		return ""
	}
	return strings.TrimSpace(c.Amount.String() + " " + c.Currency)
}

// Price is what a million tokens of a model cost.
type Price struct {
	Currency    string
	Input       Money
	Output      Money
	CachedInput Money // input that the backend had in its prompt cache
	CacheWrite  Money // input that the backend put into its prompt cache
}

// Of is the cost of a usage; nil when there is no usage or no price, which is no price of zero.
func (p *Price) Of(u *Usage) *Cost {
	if p == nil || u == nil {
		return nil
	}
	read, written := u.Cached()
	fresh := max(0, u.PromptTokens-read-written)
	amount := p.Input.perMillion(fresh) + p.CachedInput.perMillion(read) + p.CacheWrite.perMillion(written) + p.Output.perMillion(u.CompletionTokens)
	return &Cost{Amount: max(amount, 0), Currency: p.Currency}
}

// Estimate is the cost of so many tokens, none of them cached; 0 without a price.
func (p *Price) Estimate(input, output int64) Money {
	if p == nil {
		return 0
	}
	return p.Input.perMillion(input) + p.Output.perMillion(output)
}

// maxPart bounds what a part of a cost can be, so that no sum of them overflows: two thousand million units.
const maxPart = math.MaxInt64 / 4

// perMillion is the price of n tokens when m is that of a million, rounded to the nearest billionth.
func (m Money) perMillion(n int64) Money {
	if m <= 0 || n <= 0 {
		return 0
	}
	const million = 1_000_000
	high, low := bits.Mul64(uint64(m), uint64(n))
	low, carry := bits.Add64(low, million/2, 0)
	if high += carry; high >= million {
		return maxPart
	}
	quotient, _ := bits.Div64(high, low, million)
	return Money(min(quotient, maxPart))
}

// Cached is how many of the prompt's tokens the backend read from its prompt cache, and how many it wrote into it.
func (u *Usage) Cached() (read, written int64) {
	if len(u.PromptDetails) == 0 {
		return 0, 0
	}
	var details struct {
		Read    float64 `json:"cached_tokens"`
		Written float64 `json:"cache_write_tokens"`
	}
	if json.Unmarshal(u.PromptDetails, &details) != nil {
		return 0, 0
	}
	prompt := float64(max(u.PromptTokens, 0))
	read = int64(min(max(details.Read, 0), prompt))
	return read, min(int64(min(max(details.Written, 0), prompt)), max(u.PromptTokens, 0)-read)
}
