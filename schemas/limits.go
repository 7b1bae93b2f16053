package schemas

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// PartitionOf is the partition of LLM_REQUESTS in which a tenant's requests are, as [QueueTransform] has the server compute it.
func PartitionOf(tenant string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(tenant))
	return int(h.Sum32() % Partitions)
}

// LimitsKey names the record of a partition in the bucket [BucketLimits].
func LimitsKey(partition int) string { return "p" + strconv.Itoa(partition) }

// Reserve is what a request of a tenant with limits is taken to use until it has ended: the header Llm-Reserve of a work
// item.
type Reserve struct {
	Requests int64
	Input    int64 // tokens
	Output   int64 // tokens
	Money    Money
}

// Tokens are those of the prompt and of the answer.
func (r *Reserve) Tokens() int64 { return r.Input + r.Output }

// String is the header.
func (r *Reserve) String() string {
	if r == nil {
		return ""
	}
	return numbers(r.Requests, r.Input, r.Output, int64(r.Money))
}

// ParseReserve reads what [Reserve.String] wrote, of any version; nil for an empty header.
func ParseReserve(s string) (*Reserve, error) {
	if s == "" {
		return nil, nil
	}
	r := &Reserve{}
	if err := parseNumbers(s, &r.Requests, &r.Input, &r.Output, (*int64)(&r.Money)); err != nil {
		return nil, fmt.Errorf("header %s: %w", HeaderReserve, err)
	}
	return r, nil
}

// Charge is what a request of a tenant with limits has used: the header Llm-Charge of a result. With it the balances of
// tenants can be made from the log alone.
type Charge struct {
	Requests int64
	Tokens   int64
	Money    Money
	Reserve  Reserve   // that stood for it while it ran
	Sent     time.Time // when LLM_WORK stored it, by the stream's clock, in milliseconds; zero when it never came that far
	Of       uint64    // of a tombstone: the sequence in LLM_RESULTS of the record whose place it took
}

// String is the header.
func (c *Charge) String() string {
	if c == nil {
		return ""
	}
	sent := int64(0)
	if !c.Sent.IsZero() {
		sent = c.Sent.UnixMilli()
	}
	return numbers(c.Requests, c.Tokens, int64(c.Money), c.Reserve.Requests, c.Reserve.Input, c.Reserve.Output, int64(c.Reserve.Money), sent, int64(c.Of))
}

// ParseCharge reads what [Charge.String] wrote, of any version; nil for an empty header.
func ParseCharge(s string) (*Charge, error) {
	if s == "" {
		return nil, nil
	}
	c := &Charge{}
	var sent, of int64
	err := parseNumbers(s, &c.Requests, &c.Tokens, (*int64)(&c.Money), &c.Reserve.Requests, &c.Reserve.Input, &c.Reserve.Output, (*int64)(&c.Reserve.Money), &sent, &of)
	if err != nil {
		return nil, fmt.Errorf("header %s: %w", HeaderCharge, err)
	}
	if sent > 0 {
		c.Sent = time.UnixMilli(sent)
	}
	c.Of = uint64(of)
	return c, nil
}

// Allowance is what a tenant may still do when a request of it was decided upon: the header Llm-Allowance, which takes it
// from the router to the door.
type Allowance struct {
	Requests, Tokens Quota
}

// Quota is one limit and what is left of it. The zero value is no limit.
type Quota struct {
	Limit, Remaining int64
	Reset            time.Duration // until all of it is free again, in milliseconds; 0 when nobody knows
}

// String is the header; empty when there is no limit.
func (a *Allowance) String() string {
	if a == nil || a.Requests.Limit == 0 && a.Tokens.Limit == 0 {
		return ""
	}
	r, t := a.Requests, a.Tokens
	return numbers(r.Limit, r.Remaining, r.Reset.Milliseconds(), t.Limit, t.Remaining, t.Reset.Milliseconds())
}

// ParseAllowance reads what [Allowance.String] wrote, of any version; nil for an empty header or one that cannot be read,
// since an answer is as good without.
func ParseAllowance(s string) *Allowance {
	a := &Allowance{}
	var requests, tokens int64
	if s == "" || parseNumbers(s, &a.Requests.Limit, &a.Requests.Remaining, &requests, &a.Tokens.Limit, &a.Tokens.Remaining, &tokens) != nil {
		return nil
	}
	a.Requests.Reset, a.Tokens.Reset = milliseconds(requests), milliseconds(tokens)
	return a
}

// milliseconds bounds what anyone in the account may write into a header.
func milliseconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(366*24*time.Hour/time.Millisecond))) * time.Millisecond
}

// numbers joins numbers with spaces. A later version may add more behind them.
func numbers(all ...int64) string {
	b := make([]byte, 0, 12*len(all))
	for i, n := range all {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(b)
}

// parseNumbers reads numbers from 0.
func parseNumbers(s string, into ...*int64) error {
	for i, n := range into {
		word, rest, _ := strings.Cut(s, " ")
		v, err := strconv.ParseUint(word, 10, 63)
		if err != nil {
			return fmt.Errorf("%.100q is not %d numbers", s, len(into)-i)
		}
		*n, s = int64(v), rest
	}
	return nil
}

// EventLimit is the kind of events of tenants and their limits.
const EventLimit = "limit"

// LimitEvent says that a tenant met its limits, or that it has been within them for a while.
type LimitEvent struct {
	Tenant   string    `json:"tenant"`
	State    LimitTold `json:"state"`
	Requests int       `json:"requests,omitempty"` // that met a limit meanwhile
	Seconds  int       `json:"seconds,omitempty"`  // between the first of them and now
}

// LimitTold is what a [LimitEvent] says.
type LimitTold string

// What it says.
const (
	LimitReached LimitTold = "reached"
	LimitLeft    LimitTold = "left"
)
