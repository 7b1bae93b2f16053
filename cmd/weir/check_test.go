package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCheckTellsEverything: all mistakes of a file at once, in its order, and none that only follows from another.
func TestCheckTellsEverything(t *testing.T) {
	file := writeConfig(t, `htp: 127.0.0.1:1
lease: 30
http: localhost
models:
  m:
    backend: [{name: b, protocol: echo}]
    retry: {max_tries: many, initial: 9s, max: 1s}
  n:
    backends:
      - {name: "", protocol: soap, weight: -1}
      - {name: b, protocol: openai, url: "${NOWHERE}", max_in_flight: 0}
      - {name: b, protocol: echo, url: http://h, keep_alive: 5m}
    timeouts: {first_token: 1h, total: 1s}
tenants:
  a: {models: [m, x], weight: 1001, budget: {tokens: many, window: month}}
  b: x
  a: {weight: 1}
router: {partitions: [0, 0, 9]}
`)
	_, err := loadConfig(file, nil, nil)
	if err == nil {
		t.Fatal("it was accepted")
	}
	got := strings.Split(strings.ReplaceAll(err.Error(), file, ""), "\n  ")
	want := []string{
		"the configuration has 21 mistakes:",
		":1: htp: this key does not exist; did you mean http?",
		`:2: lease: "30" is not a duration; write a number with its unit, such as 200ms, 30s or 5m`,
		":6: models.m.backend: this key does not exist; did you mean backends?",
		`:7: models.m.retry.max_tries: "many" is not a whole number`,
		":7: models.m.retry.max: 1s is shorter than initial, 9s; make it at least initial",
		`:10: models.n.backends[0].protocol: "soap" is not known; use openai, anthropic, ollama, grpc, triton or echo`,
		":10: models.n.backends[0].weight: -1 is out of range; use 1 to 1000, or leave it out",
		":10: models.n.backends[0].name: the backend has no name; name it: it is what results, logs and metrics show",
		":11: models.n.backends[1].url: the environment variable NOWHERE is not set; set it, or write $${NOWHERE} for these very characters",
		":11: models.n.backends[1].max_in_flight: 0 is out of range; use 1 to 16384, or leave it out",
		`:12: models.n.backends[2].name: there is already a backend "b"; give each backend of a model its own name`,
		":12: models.n.backends[2].url: an echo backend calls nobody; remove it, or set protocol: openai",
		":12: models.n.backends[2].keep_alive: only an ollama backend has it; remove it, or set protocol: ollama",
		":13: models.n.timeouts.first_token: 1h is longer than the whole answer may take, 1s; make it shorter, or total longer",
		":15: tenants.a.weight: 1001 is out of range; use 1 to 1000, or leave it out",
		`:15: tenants.a.budget.tokens: "many" is not a whole number`,
		`:15: tenants.a.models[1]: there is no model "x"; name a model of this configuration, or * for all`,
		":16: tenants.b: it is a single value; write keys and values below it",
		":17: tenants.a: this key is already on line 15; remove one of the two",
		":18: router.partitions[2]: 9 is out of range; use 0 to 3, or leave it out",
		":18: router.partitions[1]: 0 is there twice; name each partition once",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	out, _, err := call(t, "check", file, "--json")
	var report checked
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || exitCode(err) != 1 || report.Valid || len(report.Mistakes) != len(want)-1 {
		t.Errorf("check --json says %s, %v", out, err)
	}
}

// TestCheckReadsOn behind the mark of another document: its mistakes are told too, and none that comes of leaving it out.
func TestCheckReadsOn(t *testing.T) {
	file := writeConfig(t, "tenants: {a: {models: [m, x]}}\n---\nlease: 20\nmodels: {m: {backends: [{name: b, protocol: echo}]}}\n")
	_, _, err := call(t, "check", file)
	want := "the configuration has 3 mistakes:" +
		"\n  " + file + `:1: tenants.a.models[1]: there is no model "x"; name a model of this configuration, or * for all` +
		"\n  " + file + ":2: another document begins here, and only the first would count; remove the --- to make it part of the first, or take it out of the file" +
		"\n  " + file + `:3: lease: "20" is not a duration; write a number with its unit, such as 200ms, 30s or 5m`
	if exitCode(err) != 1 || err.Error() != want {
		t.Errorf("check says %v\nwant %s", err, want)
	}
}

// TestCheckWarns of what works and is hardly meant.
func TestCheckWarns(t *testing.T) {
	key := "{id: old, tenant: a, sha256: " + someHash + ", models: [echo, gone], expires: 2020-02-03}"
	for name, tt := range map[string]struct {
		file string
		want []string // after the file's name
	}{
		"nothing": {"lease: 20s", nil},
		"a key that is of no use": {"keys:\n- " + key, []string{
			":2: keys[0].expires: the key old expired on 2020-02-03 and opens nothing; remove the key, or give it another day",
			`:2: keys[0].models[1]: there is no model "gone" in this configuration; add it under models, or correct the name`,
		}},
		"no key": {"http: :8080\ningest: {cors: {origins: ['*']}}", []string{
			":1: http: beyond loopback it needs a key, and this configuration has none; make one with weir keys create, or add one under keys; or listen on 127.0.0.1",
			":2: ingest.cors.origins: a star holds only while there is a key, and this configuration has none; make one with weir keys create, or add one under keys",
		}},
		"replicas of one server": {"replicas: 3", []string{
			":1: replicas: weir serve refuses it: the embedded NATS server is a single one, which has no room for 3; use 1, or name the servers of the cluster with nats: nats://…",
		}},
		"replicas of a cluster": {"replicas: 3\nnats: nats://n1:4222", nil},
		"TLS of another server": {"nats: nats://n1:4222\ntls: {nats: {cert: c, key: k}}", []string{
			":2: tls.nats: weir serve refuses it: it is for the embedded server, and nats://n1:4222 is another one; remove it, and set tls.client for the connection to that server",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeConfig(t, tt.file)
			out, _, err := call(t, "check", file)
			if err != nil {
				t.Fatal(err)
			}
			var want strings.Builder
			for _, warning := range tt.want {
				want.WriteString("warning: " + file + warning + "\n")
			}
			if diff := cmp.Diff(want.String(), out[:strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1]); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			out, _, err = call(t, "check", file, "--json")
			var report checked
			if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || err != nil || !report.Valid || len(report.Warnings) != len(tt.want) {
				t.Errorf("check --json says %s, %v", out, err)
			}
		})
	}
}

// TestAKeyExpiresOnItsDay is about the moment.
func TestAKeyExpiresOnItsDay(t *testing.T) {
	c := Config{Keys: []Key{{ID: "k", Expires: "2027-12-31T18:00:00Z"}}}
	at := time.Date(2027, 12, 31, 18, 0, 0, 0, time.UTC)
	for now, want := range map[time.Time]int{at.Add(-time.Nanosecond): 0, at: 1} {
		found := newFindings()
		c.checkOdd(found, now)
		if len(found.warnings) != want {
			t.Errorf("at %s: %d warnings, want %d", now, len(found.warnings), want)
		}
	}
}

// TestServeRefusesWhatItCannotHave before anything listens.
func TestServeRefusesWhatItCannotHave(t *testing.T) {
	seeds, _, err := call(t, "keys", "issuer")
	if err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string][]string{
		"replicas: the embedded NATS server is a single one":                  {"WEIR_REPLICAS=3"},
		"auth_callout: the embedded NATS server knows the API keys by itself": strings.Split(seeds, "\n"),
	} {
		_, _, err := callWith(t, env, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--http", "127.0.0.1:0")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}

func TestTheExampleIsNotOdd(t *testing.T) {
	out, _, err := callWith(t, exampleEnvironment(), nil, "check", exampleFile)
	if err != nil || out != exampleFile+" is valid: 5 models, 2 keys\n" {
		t.Errorf("check = %q, %v", out, err)
	}
}
