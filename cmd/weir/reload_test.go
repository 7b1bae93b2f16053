package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// reloadable is the configuration of the tests: acme has a key, and the tenants and the price change.
func reloadable(price int, tenants string) string {
	sum := sha256.Sum256([]byte("acme"))
	return fmt.Sprintf("models:\n  another: {backends: [{name: e, protocol: echo}]}\n  echo:\n    backends: [{name: e, protocol: echo}]\n    price: {input: %d, output: 0}\nkeys:\n  - {id: acme, tenant: acme, sha256: %s}\n%s",
		price, hex.EncodeToString(sum[:]), tenants)
}

// write replaces a file at once, as editors and Kubernetes do.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func followed(t *testing.T, text string) (serve *process, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "weir.yaml")
	write(t, file, text)
	return start(t, nil, "serve", "--config", file, "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0"), file
}

const readAgain = `"msg":"the configuration was read again"`

// TestLimitsChangeLive starts without any limit, and gives and takes them, and a price, while the process runs.
func TestLimitsChangeLive(t *testing.T) {
	t.Parallel()
	serve, file := followed(t, reloadable(1000, ""))
	cost := func(a answered) float64 {
		return gjson.Get(serve.record(t, "acme", a.Header.Get("X-Request-Id")), "cost.amount").Num / gjson.Get(a.body, "usage.prompt_tokens").Num
	}
	first := serve.as(t, "acme", toChat, unaryChat)
	if got := first.Header.Get(schemas.HeaderLimitTokens); first.StatusCode != 200 || got != "" || cost(first) != 0.001 {
		t.Fatalf("%d, limit %q, cost %v", first.StatusCode, got, cost(first))
	}
	write(t, file, reloadable(5000, "tenants:\n  acme: {requests_per_minute: 1, tokens_per_minute: 5000, on_limit: reject}\n"))
	serve.stderr.wait(t, readAgain)
	second := serve.as(t, "acme", toChat, unaryChat)
	if got := second.Header.Get(schemas.HeaderLimitTokens); second.StatusCode != 200 || got != "5000" || cost(second) != 0.005 {
		t.Fatalf("%d, limit %q, cost %v: %s", second.StatusCode, got, cost(second), second.body)
	}
	if got := serve.as(t, "acme", toChat, unaryChat); got.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	write(t, file, reloadable(5000, "tenants:\n  acme: {models: [another]}\n"))
	serve.stderr.waitCount(t, readAgain, 2)
	if got := serve.as(t, "acme", toChat, unaryChat); got.StatusCode != http.StatusForbidden {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
}

// TestATenantIsRemovedWhileItWaits: its requests that wait at a limit go at once.
func TestATenantIsRemovedWhileItWaits(t *testing.T) {
	t.Parallel()
	serve, file := followed(t, reloadable(0, "tenants:\n  acme: {requests_per_minute: 1, max_queue_wait: 5m}\n"))
	const requests = 5
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			if a := serve.as(t, "acme", toChat, unaryChat); a.StatusCode != 200 || a.took > 50*time.Second {
				t.Errorf("%d after %s: %s", a.StatusCode, a.took, a.body)
			}
		})
	}
	serve.stderr.wait(t, `"state":"reached"`)
	write(t, file, reloadable(0, ""))
	all.Wait()
}

// TestABrokenFileChangesNothing, and is complained about once, with its line.
func TestABrokenFileChangesNothing(t *testing.T) {
	t.Parallel()
	serve, file := followed(t, reloadable(0, "tenants:\n  acme: {tokens_per_minute: 700}\n"))
	const refused = "the changed configuration cannot be used"
	limit := func() string { return serve.as(t, "acme", toChat, unaryChat).Header.Get(schemas.HeaderLimitTokens) }

	write(t, file, reloadable(0, "tenants:\n  acme: {tokens_per_minute: -700}\n"))
	if line := serve.stderr.wait(t, refused); !strings.Contains(line, ":9: tenants.acme.tokens_per_minute: -700 is out of range") {
		t.Errorf("it says %s", line)
	}
	if got := limit(); got != "700" {
		t.Errorf("the limit is %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	serve.stderr.waitCount(t, refused, 2)
	if got := limit(); got != "700" {
		t.Errorf("without a file the limit is %q", got)
	}
	write(t, file, reloadable(0, "tenants:\n  acme: {tokens_per_minute: 900}\ndrain_timeout: 20s\ncurrency: EUR\n"))
	line := serve.stderr.wait(t, "takes effect at the next start")
	if got := gjson.Get(line, "keys").Raw; got != `["currency","drain_timeout"]` {
		t.Errorf("for the next start: %s", line)
	}
	if got := limit(); got != "900" {
		t.Errorf("the limit is %q", got)
	}
	if n := strings.Count(serve.stderr.String(), refused); n != 2 {
		t.Errorf("%d complaints about two broken files", n)
	}
}

// waitCount waits until so many lines hold what.
func (l *lines) waitCount(t *testing.T, what string, count int) {
	t.Helper()
	becomes(t, fmt.Sprintf("%d lines with %q in the log", count, what), func() bool { return strings.Count(l.String(), what) >= count })
}

func TestHangupReadsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weir.yaml")
	write(t, file, reloadable(0, ""))
	serve := startProgram(t, "serve", "--config", file, "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off")
	serve.stderr.wait(t, "weir serve is ready: ")
	serve.signal(t, syscall.SIGHUP) // of a file that has not changed
	serve.stderr.wait(t, "the configuration was read again")
	serve.signal(t, syscall.SIGTERM)
	if state := serve.exit(t, time.Minute); state.ExitStatus() != 0 {
		t.Errorf("exit %d", state.ExitStatus())
	}
}

// TestWhatASwapChanges: of a new file a process takes what it can have under way, and names the rest.
func TestWhatASwapChanges(t *testing.T) {
	t.Parallel()
	load := func(text string) *Config {
		t.Helper()
		file := filepath.Join(t.TempDir(), "weir.yaml")
		write(t, file, text)
		cfg, err := loadConfig(file, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	const model = "  %s:\n    backends: [{name: b, protocol: echo, max_in_flight: %d}]\n    price: {input: %d, output: 1}\n"
	first := load("models:\n" + fmt.Sprintf(model, "kept", 1, 1) + fmt.Sprintf(model, "gone", 1, 1))
	next := load("models:\n" + fmt.Sprintf(model, "kept", 2, 7) + fmt.Sprintf(model, "new", 1, 1) + "currency: EUR\ntenants:\n  acme: {weight: 3}\n")
	for _, test := range []struct {
		serves  bool
		models  []string
		waiting []string
	}{
		{true, []string{"gone", "kept"}, []string{"models.gone", "models.kept", "models.new", "currency"}},
		{false, []string{"kept", "new"}, []string{"models.kept", "currency"}},
	} {
		l := newLive(first, test.serves)
		if diff := cmp.Diff(test.waiting, l.swap(next)); diff != "" {
			t.Errorf("serves %v: for the next start (-want +got)\n%s", test.serves, diff)
		}
		if diff := cmp.Diff(test.models, l.modelNames()); diff != "" {
			t.Errorf("serves %v: models (-want +got)\n%s", test.serves, diff)
		}
		if price := l.price("kept"); price.Input != 7*schemas.MoneyUnit || price.Currency != "USD" {
			t.Errorf("price %+v", price)
		}
		if l.weight("acme") != 3 || l.config().Models["kept"].Backends[0].MaxInFlight != 1 {
			t.Errorf("%+v", l.config())
		}
		if again := l.swap(first); len(again) != 0 || l.weight("acme") != 1 {
			t.Errorf("back to the first file: %q, weight %d", again, l.weight("acme"))
		}
	}
}
