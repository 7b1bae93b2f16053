package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference/balance"
)

func TestConfigErrorsOfBackends(t *testing.T) {
	backend := "models:\n  m:\n    backends:\n      - {name: b, protocol: openai, url: http://h/v1%s}\n"
	plain := fmt.Sprintf(backend, "")
	for name, tt := range map[string]struct {
		file string
		want string // after the file's name
	}{
		"weight":               {fmt.Sprintf(backend, ", weight: 1001"), ":4: models.m.backends[0].weight: 1001 is out of range; use 1 to 1000"},
		"proxy":                {fmt.Sprintf(backend, ", proxy: 'ftp://me:secret@p'"), ":4: models.m.backends[0]: proxy is not the URL of one"},
		"ca without TLS":       {fmt.Sprintf(backend, ", ca: ca.pem"), ":4: models.m.backends[0]: a ca is for TLS"},
		"proxy of echo":        {"models:\n  m:\n    backends: [{name: b, protocol: echo, proxy: http://p}]", ":3: models.m.backends[0]: an echo backend calls nobody; remove proxy"},
		"h2c of gRPC":          {"models:\n  m:\n    backends: [{name: b, protocol: grpc, url: grpc://h:1, h2c: true}]", ":3: models.m.backends[0]: a backend over gRPC is connected to directly"},
		"breaker":              {plain + "    breaker: {failure_percent: 101}", ":5: models.m.breaker.failure_percent: 101 is out of range; use 1 to 100"},
		"adaptive":             {plain + "    adaptive: {enabled: true, ceiling: 1s, floor: 2s}", ":5: models.m.adaptive: floor must be"},
		"adaptive that is off": {plain + "    adaptive: {ceiling: 1s}", ":5: models.m.adaptive: its settings have no effect; set enabled: true"},
		"network":              {"network:\n  deny: [10.0.0.0/8]\n  allow: [here]", `:3: network.allow[0]: "here" is neither an address nor a network`},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeConfig(t, tt.file)
			_, err := loadConfig(file, nil, nil)
			if want := "configuration: " + file + tt.want; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error = %v\nwant     %s…", err, want)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is in the error: %v", err)
			}
		})
	}
}

func TestConfigOfBackends(t *testing.T) {
	cfg, err := loadConfig(writeConfig(t, `
models:
  m:
    backends: [{name: b, protocol: openai, url: http://h/v1, weight: 3, h2c: true}]
    timeouts: {first_token: 20s}
    breaker: {window: 20s, failure_percent: 25, probes: 1}
    adaptive: {enabled: true}
network: {allow_private: false, deny: [10.9.0.0/16], allow: [10.1.2.3]}
`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := cfg.Models["m"]
	want := balance.Breaker{Window: 20 * time.Second, FailureRate: 0.25, Probes: 1}
	if d := cmp.Diff(want, m.Breaker.config()); d != "" {
		t.Error(d)
	}
	if a := m.adaptive(); a == nil || a.Ceiling != 10*time.Second {
		t.Errorf("adaptive: %+v, want a ceiling of half the first-token timeout", a)
	}
	addresses := cfg.Network.addresses()
	for addr, ok := range map[string]bool{"8.8.8.8": true, "10.1.2.3": true, "10.1.2.4": false, "10.9.1.1": false, "169.254.169.254": false} {
		if err := addresses.Check(netip.MustParseAddr(addr)); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if c := m.Backends[0].connection(addresses); !c.H2C || !c.Addresses.NoPrivate {
		t.Errorf("%+v", c)
	}
}
