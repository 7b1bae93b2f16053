package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// keys runs weir keys … --json and reads what it prints.
func keysJSON(t *testing.T, dir string, args ...string) (printed []shownKey) {
	t.Helper()
	out, stderr, err := call(t, append(append([]string{"keys"}, args...), "--json", "--data-dir", dir)...)
	if err != nil {
		t.Fatalf("weir keys %v: %v, %s", args, err, stderr)
	}
	for line := range strings.Lines(out) {
		var k shownKey
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		printed = append(printed, k)
	}
	return printed
}

// models asks for the list of models and gives the status.
func (p *process) models(t *testing.T, header ...string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.HTTP+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// becomes polls until the condition holds, on a machine that is busy with something else too.
func becomes(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func natsAdmits(t *testing.T, p *process, with ...nats.Option) bool {
	t.Helper()
	nc, err := nats.Connect(p.NATS, append(with, nats.Timeout(time.Minute))...)
	if err == nil {
		nc.Close()
		return true
	}
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("connect: %v", err)
	}
	return false
}

// TestKeys drives keys as an operator does: open, the first key, both doors, rotation, revocation, a restart.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	if !natsAdmits(t, serve) || serve.models(t, "Authorization", "Bearer anything") != 200 {
		t.Error("no open access although there is no key")
	}
	_, _, err := call(t, "ingest", "--http", "192.0.2.1:0", "--nats", serve.NATS, "--admin", "off")
	if err == nil || !strings.Contains(err.Error(), "http: refusing to listen on 192.0.2.1:0 without API keys") {
		t.Errorf("ingest on a foreign address without keys: %v", err)
	}
	endless := serve.post(t, chat("x", `,"stream":true,"x_echo":{"tokens":1000,"interval_ms":20}`))

	first := keysJSON(t, dir, "create", "--tenant", "acme", "--models", "echo,gpt-4.1", "--expires", "720h")[0]
	if !regexp.MustCompile(`^weir_[0-9a-z]{12}_[0-9A-Za-z]{49}$`).MatchString(first.Key) || first.Tenant != "acme" || len(first.Models) != 2 {
		t.Fatalf("created %+v", first)
	}
	becomes(t, "the first key closes HTTP", func() bool { return serve.models(t) == 401 })
	becomes(t, "the first key closes NATS", func() bool { return !natsAdmits(t, serve) })
	if rest, err := io.ReadAll(endless.Body); err != nil || !strings.Contains(string(rest), `"code":"invalid_api_key"`) {
		t.Errorf("an open stream ended with %.300s (%v)", rest, err)
	}
	bearer, apiKey := []string{"Authorization", "Bearer " + first.Key}, []string{"x-api-key", first.Key}
	for _, header := range [][]string{bearer, apiKey} {
		if status := serve.models(t, header...); status != 200 {
			t.Errorf("with %s: %d", header[0], status)
		}
	}
	if !natsAdmits(t, serve, nats.Token(first.Key)) {
		t.Error("the key does not open NATS")
	}
	if _, _, err := call(t, "ask", "still here", "--data-dir", dir); err != nil {
		t.Errorf("the operator is locked out: %v", err)
	}

	second := keysJSON(t, dir, "create", "--id", first.ID)[0]
	becomes(t, "the second secret", func() bool { return serve.models(t, "x-api-key", second.Key) == 200 })
	if len(second.Secrets) != 2 || second.Key == first.Key || serve.models(t, bearer...) != 200 {
		t.Errorf("rotated %+v", second)
	}
	keysJSON(t, dir, "revoke", first.ID, "--secret", first.Secrets[0].Name)
	becomes(t, "the revocation", func() bool { return serve.models(t, bearer...) == 401 && !natsAdmits(t, serve, nats.Token(first.Key)) })

	audit := keysJSON(t, dir, "create", "--tenant", "acme", "--scope", "audit")[0]
	becomes(t, "the audit key", func() bool { return serve.models(t, "x-api-key", audit.Key) == 200 })
	if response := serve.post(t, chat("x", ""), "x-api-key", audit.Key); response.StatusCode != 403 {
		t.Errorf("an audit key sends: %d", response.StatusCode)
	}
	checkList(t, dir, first, second, audit)

	if err := serve.end(t); err != nil {
		t.Fatal(err)
	}
	serve = start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	if serve.models(t) != 401 || natsAdmits(t, serve) || serve.models(t, "x-api-key", second.Key) != 200 {
		t.Error("a restart forgot the keys")
	}
	_, _, err = call(t, "ingest", "--http", "192.0.2.1:0", "--data-dir", dir, "--context", filepath.Join(dir, "nats", "context", "weir.json"), "--admin", "off")
	if err == nil || strings.Contains(err.Error(), "without API keys") {
		t.Errorf("ingest on a foreign address with keys: %v, want only that this machine does not have it", err)
	}
	wantNoSecrets(t, dir, first.Key, second.Key, audit.Key)
}

// checkList compares weir keys list with what was made.
func checkList(t *testing.T, dir string, first, second, audit shownKey) {
	t.Helper()
	live := keysJSON(t, dir, "list")
	if len(live) != 2 || live[0].ID != first.ID || len(live[0].Secrets) != 1 || live[0].Secrets[0].Name != second.Secrets[1].Name || live[0].Key != "" {
		t.Errorf("list = %+v", live)
	}
	if all := keysJSON(t, dir, "list", "--all", "--tenant", "acme"); len(all) != 2 || len(all[0].Secrets) != 2 || all[0].Secrets[0].State != "revoked" {
		t.Errorf("list --all = %+v", all)
	}
	if none := keysJSON(t, dir, "list", "--tenant", "other"); len(none) != 0 {
		t.Errorf("list of another tenant = %+v", none)
	}
	out, _, err := call(t, "keys", "list", "--data-dir", dir)
	if err != nil || !strings.Contains(out, audit.ID+"  "+audit.Secrets[0].Name+"  live     acme  audit  models *") {
		t.Errorf("list = %s, %v", out, err)
	}
	if _, _, err := call(t, "keys", "revoke", "zzzzzzzzzzzz", "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("revoke of an unknown key: %v", err)
	}
	for _, expires := range []string{"soon", "-1h", "2001-01-01"} {
		if _, _, err := call(t, "keys", "create", "--expires", expires, "--data-dir", dir); err == nil {
			t.Errorf("--expires %s was taken", expires)
		}
	}
	for _, none := range []string{"", ","} {
		if _, _, err := call(t, "keys", "create", "--models", none, "--data-dir", dir); err == nil {
			t.Errorf("--models %q made a key for all of them", none)
		}
	}
}

// wantNoSecrets looks for keys in everything that was written.
func wantNoSecrets(t *testing.T, dir string, keys ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, key := range keys {
			if strings.Contains(string(b), key[18:40]) {
				t.Errorf("%s holds the secret of a key", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFirstKeyByAddress: who makes the first key over a connection without credentials closes the door behind itself, and
// still ends well; afterwards the same way in is told what to do instead.
func TestFirstKeyByAddress(t *testing.T) {
	serve := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0")
	out, stderr, err := call(t, "keys", "create", "--nats", serve.NATS)
	if err != nil || !strings.HasPrefix(out, "weir_") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("the first key: %v, %s", err, stderr)
	}
	becomes(t, "the first key closes NATS", func() bool { return !natsAdmits(t, serve) })
	if _, _, err := call(t, "keys", "list", "--nats", serve.NATS); err == nil || !strings.Contains(err.Error(), "--context") {
		t.Errorf("without credentials: %v", err)
	}
	serve.end(t)
	if _, _, err := call(t, "ask", "x", "--nats", serve.NATS); err == nil || !strings.Contains(err.Error(), "weir serve") {
		t.Errorf("without a server: %v", err)
	}
}

func TestKeysIssuer(t *testing.T) {
	out, _, err := call(t, "keys", "issuer")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`WEIR_NATS_CALLOUT_ISSUER=A[A-Z2-7]{55}\n`, `WEIR_NATS_CALLOUT_XKEY=X[A-Z2-7]{55}\n`, `WEIR_AUTH_CALLOUT_ISSUER_SEED=SA[A-Z2-7]{56}\n`, `WEIR_AUTH_CALLOUT_XKEY_SEED=SX[A-Z2-7]{56}\n`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
}
