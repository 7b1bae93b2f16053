package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// limitedServer is serve with tenants and a key for each, whose secret is the tenant's name.
func limitedServer(t *testing.T, dir, tenants string, names ...string) *process {
	t.Helper()
	var config strings.Builder
	config.WriteString("models:\n" +
		"  echo:\n    backends: [{name: e, protocol: echo}]\n    price: {input: 500000, output: 1000000}\n" + // half a unit for a token, and one for one of the answer
		"  counted:\n    backends: [{name: c, protocol: echo}]\n    price: {input: 0, output: 0}\n    count_tokens: exact\n" +
		"  slow:\n    backends: [{name: s, protocol: echo, echo: {interval_ms: 300, tokens: 10}}]\n    price: {input: 0, output: 0}\n" +
		"keys:\n")
	for _, name := range names {
		sum := sha256.Sum256([]byte(name))
		config.WriteString(fmt.Sprintf("  - {id: %s, tenant: %s, sha256: %s}\n", name, name, hex.EncodeToString(sum[:])))
	}
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(config.String()+"tenants:\n"+tenants), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, nil, "serve", "--config", file, "--data-dir", dir, "--nats", "127.0.0.1:0")
}

// answered is an answer that was read to its end.
type answered struct {
	*http.Response
	body string
	took time.Duration
}

func (p *process) as(t *testing.T, tenant, path, body string) answered {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+tenant)
	began := time.Now()
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{response, string(all), time.Since(began)}
}

const (
	toChat     = "/v1/chat/completions"
	unaryChat  = `{"model":"echo","max_tokens":10,"messages":[{"role":"user","content":"a b"}]}`
	streamChat = `{"model":"echo","max_tokens":10,"stream":true,"messages":[{"role":"user","content":"a b"}]}`
)

// retryAfter is how long the answer says to wait, by both headers, which must agree.
func (a answered) retryAfter(t *testing.T) time.Duration {
	t.Helper()
	ms, err1 := strconv.Atoi(a.Header.Get(schemas.HeaderRetryAfterMS))
	seconds, err2 := strconv.Atoi(a.Header.Get(schemas.HeaderRetryAfter))
	if err1 != nil || err2 != nil || seconds != (ms+999)/1000 {
		t.Fatalf("Retry-After %q, Retry-After-Ms %q", a.Header.Get(schemas.HeaderRetryAfter), a.Header.Get(schemas.HeaderRetryAfterMS))
	}
	return time.Duration(ms) * time.Millisecond
}

// TestLimitsOverHTTP has each policy answer as SDKs expect.
func TestLimitsOverHTTP(t *testing.T) {
	t.Parallel()
	serve := limitedServer(t, t.TempDir(), `
  rejected: {requests_per_minute: 30, on_limit: reject}
  queued: {requests_per_minute: 60, max_queue_wait: 20s}
  impatient: {requests_per_minute: 1, max_queue_wait: 300ms} # a request would have to wait a minute
  frugal: {budget: {tokens: 8, window: 24h}}
  poor: {budget: {money: 10, window: month}, on_limit: reject}
  narrow: {max_in_flight: 1, on_limit: reject}
  select: {models: [echo]}
  terse: {tokens_per_minute: 20, on_limit: reject}
  exact: {tokens_per_minute: 1000}
  default: {tokens_per_minute: 1000}
`, "rejected", "queued", "impatient", "frugal", "poor", "narrow", "select", "terse", "exact", "other")

	t.Run("reject", func(t *testing.T) {
		t.Parallel()
		var last answered
		for n := range 30 {
			last = serve.as(t, "rejected", toChat, []string{unaryChat, streamChat}[n%2])
			if last.StatusCode == http.StatusTooManyRequests && n > 0 {
				break
			}
			if got := last.Header.Get(schemas.HeaderLimitRequests); last.StatusCode != 200 || got != "30" {
				t.Fatalf("answer %d: %d, limit %q: %s", n, last.StatusCode, got, last.body)
			}
			if remaining, _ := strconv.Atoi(last.Header.Get(schemas.HeaderRemainingRequests)); remaining < 29-n || remaining > 29 {
				t.Errorf("after %d requests %d remain", n+1, remaining)
			}
		}
		for last.StatusCode == 200 {
			last = serve.as(t, "rejected", toChat, unaryChat)
		}
		if last.StatusCode != http.StatusTooManyRequests || gjson.Get(last.body, "error.code").Str != "rate_limit_exceeded" || gjson.Get(last.body, "error.type").Str != "requests" || last.Header.Get(schemas.HeaderRemainingRequests) != "0" {
			t.Fatalf("%d %s, %v", last.StatusCode, last.body, last.Header)
		}
		wait := last.retryAfter(t)
		if wait <= 0 || wait > 2*time.Second {
			t.Fatalf("told to wait %s, but a request comes free every 2s", wait)
		}
		if reset, err := time.ParseDuration(last.Header.Get(schemas.HeaderResetRequests)); err != nil || reset < 57*time.Second || reset > time.Minute {
			t.Errorf("reset in %s, %v", reset, err)
		}
		<-time.After(wait)
		if again := serve.as(t, "rejected", toChat, unaryChat); again.StatusCode != 200 {
			t.Errorf("after the wait it was told: %d %s", again.StatusCode, again.body)
		}
	})
	t.Run("queue", func(t *testing.T) {
		t.Parallel()
		const more = 3
		var all sync.WaitGroup
		began := time.Now()
		for n := range 60 + more {
			all.Go(func() {
				if got := serve.as(t, "queued", toChat, unaryChat); got.StatusCode != 200 {
					t.Errorf("request %d: %d %s", n, got.StatusCode, got.body)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took < (more-1)*time.Second {
			t.Errorf("%d requests took only %s", 60+more, took)
		}
	})
	t.Run("queue for too long", func(t *testing.T) {
		t.Parallel()
		serve.as(t, "impatient", toChat, unaryChat)
		got := serve.as(t, "impatient", toChat, unaryChat)
		if got.StatusCode != http.StatusTooManyRequests || got.retryAfter(t) < 30*time.Second {
			t.Errorf("%d after %s, told to wait %s: %s", got.StatusCode, got.took, got.retryAfter(t), got.body)
		}
	})
	t.Run("budget of tokens", func(t *testing.T) {
		t.Parallel()
		first := serve.as(t, "frugal", toChat, unaryChat)
		if first.StatusCode != 200 || first.Header.Get(schemas.HeaderLimitTokens) != "8" {
			t.Fatalf("%d %s, %v", first.StatusCode, first.body, first.Header)
		}
		serve.as(t, "frugal", toChat, unaryChat)
		got := serve.as(t, "frugal", toChat, unaryChat)
		if got.StatusCode != http.StatusTooManyRequests || gjson.Get(got.body, "error.code").Str != "insufficient_quota" || got.Header.Get(schemas.HeaderShouldRetry) != "false" {
			t.Errorf("%d %s, %v", got.StatusCode, got.body, got.Header)
		}
		if wait := got.retryAfter(t); wait > 24*time.Hour || got.took > time.Minute {
			t.Errorf("told to wait %s after %s", wait, got.took)
		}
	})
	t.Run("budget of money", func(t *testing.T) {
		t.Parallel()
		first := serve.as(t, "poor", toChat, unaryChat)
		input, output := gjson.Get(first.body, "usage.prompt_tokens").Int(), gjson.Get(first.body, "usage.completion_tokens").Int()
		if first.StatusCode != 200 || input == 0 || output == 0 {
			t.Fatalf("%d %s", first.StatusCode, first.body)
		}
		record := serve.record(t, "poor", first.Header.Get("X-Request-Id"))
		if cost := gjson.Get(record, "cost.amount").Num; cost != float64(input)/2+float64(output) || gjson.Get(record, "cost.currency").Str != "USD" {
			t.Errorf("%d and %d tokens cost %s", input, output, gjson.Get(record, "cost").Raw)
		}
		cost := float64(input)/2 + float64(output)
		spent := cost
		for spent < 10 {
			if got := serve.as(t, "poor", toChat, unaryChat); got.StatusCode != 200 {
				t.Fatalf("refused after %v of 10 units: %s", spent, got.body)
			}
			spent += cost
		}
		got := serve.as(t, "poor", toChat, unaryChat)
		for gjson.Get(got.body, "error.code").Str == "rate_limit_exceeded" { // what is left is still reserved by the last one
			got = serve.as(t, "poor", toChat, unaryChat)
		}
		if got.StatusCode != http.StatusTooManyRequests || gjson.Get(got.body, "error.code").Str != "insufficient_quota" {
			t.Errorf("%v units of 10 are spent: %d %s", spent, got.StatusCode, got.body)
		}
		if free := serve.as(t, "poor", toChat, strings.Replace(unaryChat, "echo", "slow", 1)); gjson.Get(free.body, "error.code").Str != "insufficient_quota" {
			t.Errorf("a spent budget lets a request pass: %d %s", free.StatusCode, free.body)
		}
	})
	t.Run("tokens", func(t *testing.T) {
		t.Parallel()
		got := serve.as(t, "terse", toChat, unaryChat)
		for got.StatusCode == 200 {
			got = serve.as(t, "terse", toChat, unaryChat)
		}
		if got.StatusCode != http.StatusTooManyRequests || gjson.Get(got.body, "error.code").Str != "rate_limit_exceeded" || gjson.Get(got.body, "error.type").Str != "tokens" {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	})
	t.Run("counted exactly", func(t *testing.T) {
		t.Parallel()
		got := serve.as(t, "exact", toChat, strings.Replace(unaryChat, "echo", "counted", 1))
		const reserved = 3 + 3 + 1 + 2 + 10 // of the answer, a message, its role, its text, and max_tokens
		if got.StatusCode != 200 || got.Header.Get(schemas.HeaderRemainingTokens) != strconv.Itoa(1000-reserved) {
			t.Errorf("%d, %s tokens are left of 1000, want %d", got.StatusCode, got.Header.Get(schemas.HeaderRemainingTokens), 1000-reserved)
		}
	})
	t.Run("in flight", func(t *testing.T) {
		t.Parallel()
		slow := strings.Replace(streamChat, "echo", "slow", 1)
		running, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(running)
			got := serve.as(t, "narrow", toChat, slow)
			for got.StatusCode == http.StatusTooManyRequests { // one of the others was first
				got = serve.as(t, "narrow", toChat, slow)
			}
			if got.StatusCode != 200 {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		}()
		<-running
		refused := false
		for !refused {
			select {
			case <-done:
				t.Fatal("the first ended, and none was refused meanwhile")
			default:
			}
			got := serve.as(t, "narrow", toChat, unaryChat)
			refused = got.StatusCode == http.StatusTooManyRequests && gjson.Get(got.body, "error.code").Str == "rate_limit_exceeded"
		}
		<-done
		got := serve.as(t, "narrow", toChat, unaryChat)
		for deadline := time.Now().Add(time.Minute); got.StatusCode != 200 && time.Now().Before(deadline); {
			got = serve.as(t, "narrow", toChat, unaryChat)
		}
		if got.StatusCode != 200 {
			t.Errorf("nothing runs any more: %d %s", got.StatusCode, got.body)
		}
	})
	t.Run("models", func(t *testing.T) {
		t.Parallel()
		if got := serve.as(t, "select", toChat, unaryChat); got.StatusCode != 200 {
			t.Errorf("its model: %d %s", got.StatusCode, got.body)
		}
		got := serve.as(t, "select", toChat, strings.Replace(unaryChat, "echo", "slow", 1))
		if got.StatusCode != http.StatusForbidden || gjson.Get(got.body, "error.code").Str != "model_not_allowed" {
			t.Errorf("another: %d %s", got.StatusCode, got.body)
		}
	})
	t.Run("default, and the headers of Anthropic", func(t *testing.T) {
		t.Parallel()
		got := serve.as(t, "other", "/v1/messages", `{"model":"echo","max_tokens":10,"messages":[{"role":"user","content":"a b"}]}`)
		if got.StatusCode != 200 || got.Header.Get(schemas.HeaderAnthropicLimitTokens) != "1000" {
			t.Fatalf("%d %s, %v", got.StatusCode, got.body, got.Header)
		}
		reset, err := time.Parse(time.RFC3339, got.Header.Get(schemas.HeaderAnthropicResetTokens))
		if left, _ := strconv.Atoi(got.Header.Get(schemas.HeaderAnthropicRemainingTokens)); left < 900 || left >= 1000 || err != nil || time.Until(reset) > 10*time.Second {
			t.Errorf("%d remain, reset at %s, %v", left, reset, err)
		}
	})
}

// record is the result of a request, once it is there.
func (p *process) record(t *testing.T, tenant, id string) string {
	t.Helper()
	for {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.HTTP+"/v1/streams/"+id+"/result", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+tenant)
		response, err := caller().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode == http.StatusOK {
			return string(body)
		}
		if response.StatusCode != http.StatusAccepted {
			t.Fatalf("result of %s: %d %s", id, response.StatusCode, body)
		}
	}
}
