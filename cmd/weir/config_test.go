package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-llm/weir/inference"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const someHash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

func TestConfigErrors(t *testing.T) {
	backend := "models:\n  m:\n    backends:\n      - {name: b, protocol: openai, url: http://h/v1%s}\n"
	tests := map[string]struct {
		file string
		want string // after the file's name
	}{
		"not YAML":            {"http: [", ":1: "},
		"tab":                 {"models:\n\tm: 1", ":2: "},
		"unknown key":         {"htp: x", ":1: htp: this key does not exist; did you mean http?"},
		"unknown key, far":    {"zzzzzzzz: x", ":1: zzzzzzzz: this key does not exist; the keys here are http, nats"},
		"unknown nested":      {"models:\n  m:\n    backend: []", ":3: models.m.backend: this key does not exist; did you mean backends?"},
		"key twice":           {"http: 127.0.0.1:1\nhttp: 127.0.0.1:2", ":2: http: this key is already on line 1; remove one of the two"},
		"second document":     {"http: 127.0.0.1:1\n--- # mine\n\nkeys: []", ":2: another document begins here, and only the first would count; remove the --- to make it part of the first, or take it out of the file"},
		"third document":      {"http: 127.0.0.1:1\n---\n# none\n---\nkeys: []", ":4: another document begins here"},
		"behind an empty one": {"---\n---\nkeys: []", ":2: another document begins here"},
		"behind the end":      {"http: 127.0.0.1:1\n...\nkeys: []", ":2: "},
		"second is no YAML":   {"http: 127.0.0.1:1\n---\nkeys: [", ":3: "},
		"list for value":      {"http: [a]", ":1: http: it is a list; write one value"},
		"value for mapping":   {"sink: x", ":1: sink: it is a single value; write keys and values below it"},
		"value for list":      {"keys: x", ":1: keys: it is a single value; write a list"},
		"empty value":         {"http:", ":1: http: it is empty; write one value"},
		"unset variable":      {"http: ${NOPE}", ":1: http: the environment variable NOPE is not set; set it, or write $${NOPE}"},
		"bare duration":       {"lease: 30", `:1: lease: "30" is not a duration; write a number with its unit`},
		"negative duration":   {"lease: -3s", `:1: lease: "-3s" is not a duration`},
		"short lease":         {"lease: 10ms", ":1: lease: 10ms is out of range; use 1s to 1h"},
		"short drain":         {"drain_timeout: 0s", ":1: drain_timeout: 0s is out of range; use 1s to 1h"},
		"not a number":        {"replicas: many", `:1: replicas: "many" is not a whole number`},
		"fraction":            {"replicas: 1.5", `:1: replicas: "1.5" is not a whole number`},
		"replicas":            {"replicas: 2", ":1: replicas: 2 is not known; use 1, 3 or 5"},
		"durability":          {"durability: maximum", `:1: durability: "maximum" is not known; use power or process`},
		"log level":           {"log_level: loud", `:1: log_level: "loud" is not known; use debug, info, warn or error`},
		"address":             {"http: localhost", `:1: http: "localhost" is not an address; write host:port`},
		"port":                {"admin: 127.0.0.1:99999", `:1: admin: "99999" is not a port`},
		"nats address":        {"nats: nowhere", `:1: nats: "nowhere" is not an address`},
		"nats URL":            {"nats: nats://", `:1: nats: "nats://" is not the URL of a NATS server; write nats://host:4222`},
		"no web origin":       {"ingest:\n  cors:\n    origins: ['*', 'https://a.example.com/']", ":3: ingest.cors.origins[1]: web origin \"https://a.example.com/\" is not written as browsers send it"},
		"half a user of EDGE": {"ingest: {edge: {user: edge}}", ":1: ingest.edge: the credentials are not whole; give user and password"},
		"two users of EDGE":   {"ingest: {edge: {user: edge, password: p, creds: f}}", ":1: ingest.edge: the credentials are not whole"},
		"no data_dir":         {`data_dir: ""`, ":1: data_dir: it is empty; name a directory"},
		"otlp":                {"telemetry: {otlp_endpoint: collector}", `:1: telemetry.otlp_endpoint: "collector" is not the URL of a collector`},
		"body limit":          {"ingest: {max_body_bytes: 99999999999}", ":1: ingest.max_body_bytes: 99999999999 is out of range; use 1 to 10485760"},
		"streams of a key":    {"ingest: {max_streams_per_key: -1}", ":1: ingest.max_streams_per_key: -1 is out of range; use 1 to 1000000, or leave it out"},
		"active routers":      {"router: {active: 5}", ":1: router.active: 5 is out of range; use 1 to 4"},
		"partition":           {"router:\n  partitions:\n  - 0\n  - 4", ":4: router.partitions[1]: 4 is out of range; use 0 to 3"},
		"trusted proxy":       {"ingest:\n  trusted_proxies:\n  - 10.0.0.1\n  - proxy", `:4: ingest.trusted_proxies[1]: "proxy" is neither an address nor a network; write an address`},
		"half a certificate":  {"tls:\n  http: {cert: a.pem}", ":2: tls.http: TLS needs both cert and key"},
		"no certificate":      {"tls:\n  nats: {client_auth: none}", ":2: tls.nats: TLS needs both cert and key"},
		"client auth":         {"tls: {http: {cert: a, key: b, client_auth: maybe}}", `:1: tls.http.client_auth: "maybe" is not known; use none, request or require`},
		"no client CA":        {"tls: {nats: {cert: a, key: b, client_auth: require}}", ":1: tls.nats: client_auth require needs client_ca"},
		"idle client CA":      {"tls: {nats: {cert: a, key: b, client_ca: c}}", ":1: tls.nats: client_ca is checked only with client_auth"},
		"half a client":       {"tls: {client: {key: b}}", ":1: tls.client: a certificate of one's own needs both cert and key"},
		"no requests":         {"tenants:\n  a: {requests_per_minute: 0}", ":2: tenants.a.requests_per_minute: 0 is out of range; use 1 to 1000000000000, or leave it out"},
		"negative tokens":     {"tenants:\n  a: {tokens_per_minute: -5}", ":2: tenants.a.tokens_per_minute: -5 is out of range"},
		"none in flight":      {"tenants:\n  a: {max_in_flight: 0}", ":2: tenants.a.max_in_flight: 0 is out of range"},
		"counting":            {"models:\n  m:\n    count_tokens: fast\n    backends: [{name: b, protocol: echo}]", `:3: models.m.count_tokens: "fast" is not known; use estimate or exact`},
		"absurd weight":       {"tenants:\n  a: {weight: 1001}", ":2: tenants.a.weight: 1001 is out of range; use 1 to 1000"},
		"on_limit":            {"tenants:\n  a: {on_limit: drop}", `:2: tenants.a.on_limit: "drop" is not known; use queue or reject`},
		"reject and wait":     {"tenants:\n  a: {on_limit: reject, max_queue_wait: 3s}", ":2: tenants.a.max_queue_wait: nothing waits with on_limit: reject"},
		"short queue wait":    {"tenants:\n  a: {max_queue_wait: 1ms}", ":2: tenants.a.max_queue_wait: 1ms is out of range; use 100ms to 1h"},
		"no tenant's models":  {"tenants:\n  a: {models: []}", ":2: tenants.a.models: the list is empty; list names of models"},
		"empty budget":        {"tenants:\n  a: {budget: {window: 24h}}", ":2: tenants.a.budget: the budget is empty; give tokens, money or both"},
		"budget for ever":     {"tenants:\n  a: {budget: {tokens: 5}}", `:2: tenants.a.budget.window: "" is no span of time; write month, or a time from 1m to 8784h`},
		"negative budget":     {"tenants:\n  a: {budget: {tokens: -5, window: month}}", ":2: tenants.a.budget.tokens: -5 is out of range"},
		"negative money":      {"tenants:\n  a: {budget: {money: -5, window: month}}", `:2: tenants.a.budget.money: "-5" is not an amount`},
		"money, no price":     {"tenants:\n  a: {budget: {money: 5, window: month}}", ":2: tenants.a.budget.money: the model echo has no price, and would be free; add models.echo.price"},
		"price of no model":   {"models:\n  m:\n    backends: [{name: b, protocol: echo}]\n    prices: {input: 1}", ":4: models.m.prices: this key does not exist; did you mean price?"},
		"currency":            {"currency: ''", `:1: currency: "" cannot be a currency; write its code, such as USD or EUR`},
		"negative price":      {"models:\n  m:\n    backends: [{name: b, protocol: echo}]\n    price: {input: -1}", `:4: models.m.price.input: "-1" is not an amount: write a number from 0`},
		"price of a token":    {"models:\n  m:\n    backends: [{name: b, protocol: echo}]\n    price: {output: 1000001}", ":4: models.m.price.output: 1000001 is out of range; use 0 to 1000000"},
		"no backend":          {"models:\n  m: {}", ":2: models.m.backends: the model has no backend; add one"},
		"no name":             {"models:\n  m:\n    backends: [{protocol: echo}]", ":3: models.m.backends[0].name: the backend has no name; name it"},
		"protocol":            {"models:\n  m:\n    backends:\n    - name: b\n      protocol: soap", `:5: models.m.backends[0].protocol: "soap" is not known; use openai, anthropic, ollama, grpc, triton or echo`},
		"url of grpc":         {rpcBackend("grpc", "http://h:1", ""), `:3: models.m.backends[0].url: "http://h:1" is not a grpc or grpcs address; write it like grpc://`},
		"port of grpc":        {rpcBackend("grpc", "grpc://u:p@h", ""), `:3: models.m.backends[0].url: "xxxxx@h" has no port; write it like`},
		"ca without TLS":      {rpcBackend("grpc", "grpc://h:1", ", ca: ca.pem"), ":3: models.m.backends[0].ca: it is for TLS, which the url does not ask for; write the url with grpcs://"},
		"limit of grpc":       {rpcBackend("grpc", "grpc://h:1", ", max_tokens: 5"), ":3: models.m.backends[0].max_tokens: it means nothing to a grpc backend; remove it"},
		"template of grpc":    {rpcBackend("grpc", "grpc://h:1", ", template: raw"), ":3: models.m.backends[0].template: it means nothing to a grpc backend; remove it"},
		"template of openai":  {fmt.Sprintf(backend, ", template: raw"), ":4: models.m.backends[0].template: only a triton backend has it; remove it"},
		"odd template":        {rpcBackend("triton", "grpc://h:1", ", template: vicuna"), `:3: models.m.backends[0].template: "vicuna" is not known; use raw, chatml or llama3`},
		"dials of grpc":       {rpcBackend("grpc", "grpc://h:1", ", echo: {tokens: 5}"), ":3: models.m.backends[0].echo: it means nothing to a grpc backend"},
		"nats odd password":   {"nats: 'nats://u:p w@h:4222'", `:1: nats: "xxxxx@h:4222" is not the URL of a NATS server`},
		"url odd password":    {"models:\n  m:\n    backends: [{name: b, protocol: openai, url: 'http://u:p w@h/v1'}]", `:3: models.m.backends[0].url: "xxxxx@h/v1" is not a URL`},
		"no url":              {"models:\n  m:\n    backends: [{name: b, protocol: openai}]", `:3: models.m.backends[0].url: "" is not a URL; write the base URL`},
		"url of echo":         {"models:\n  m:\n    backends: [{name: b, protocol: echo, url: http://x}]", ":3: models.m.backends[0].url: an echo backend calls nobody; remove it"},
		"dials of openai":     {fmt.Sprintf(backend, ", echo: {tokens: 3}"), ":4: models.m.backends[0].echo: only an echo backend has it"},
		"limit of openai":     {fmt.Sprintf(backend, ", max_tokens: 5"), ":4: models.m.backends[0].max_tokens: only an anthropic or triton backend has it; remove it"},
		"version of openai":   {fmt.Sprintf(backend, ", anthropic_version: 2023-06-01"), ":4: models.m.backends[0].anthropic_version: only an anthropic backend has it"},
		"odd version":         {anthropicBackend("anthropic_version: new"), `:3: models.m.backends[0].anthropic_version: "new" is not a version; use 2023-06-01 or 2026-10-21`},
		"limit of anthropic":  {anthropicBackend("max_tokens: -1"), ":3: models.m.backends[0].max_tokens: -1 is out of range"},
		"name of the limit":   {anthropicBackend("max_completion_tokens: true"), ":3: models.m.backends[0].max_completion_tokens: only an openai backend has it"},
		"finish reason":       {anthropicBackend("require_finish_reason: true"), ":3: models.m.backends[0].require_finish_reason: it means nothing to an anthropic backend; remove it"},
		"context of openai":   {fmt.Sprintf(backend, ", num_ctx: 5"), ":4: models.m.backends[0].num_ctx: only an ollama backend has it; remove it"},
		"keeping of openai":   {fmt.Sprintf(backend, ", keep_alive: 5m"), ":4: models.m.backends[0].keep_alive: only an ollama backend has it; remove it"},
		"url of ollama":       {ollamaBackend("http://x:11434/v1", ""), `:3: models.m.backends[0].url: "http://x:11434/v1" is not the address of Ollama's own API; write the server's address alone`},
		"context of ollama":   {ollamaBackend("http://x", ", num_ctx: -1"), ":3: models.m.backends[0].num_ctx: -1 is out of range"},
		"keeping of ollama":   {ollamaBackend("http://x", ", keep_alive: '10'"), `:3: models.m.backends[0].keep_alive: "10" is no duration; write a duration such as 10m`},
		"finish of ollama":    {ollamaBackend("http://x", ", require_finish_reason: true"), ":3: models.m.backends[0].require_finish_reason: it means nothing to an ollama backend"},
		"bool":                {fmt.Sprintf(backend, ", deterministic: maybe"), `:4: models.m.backends[0].deterministic: "maybe" is not a switch; write true or false`},
		"in flight":           {fmt.Sprintf(backend, ", max_in_flight: -1"), ":4: models.m.backends[0].max_in_flight: -1 is out of range; use 1 to 16384, or leave it out"},
		"same backend twice":  {fmt.Sprintf(backend, "") + "      - {name: b, protocol: echo}", `:5: models.m.backends[1].name: there is already a backend "b"`},
		"weight":              {"tenants:\n  acme: {weight: 1001}", ":2: tenants.acme.weight: 1001 is out of range; use 1 to 1000"},
		"no weight":           {"tenants:\n  acme: {weight: 0}", ":2: tenants.acme.weight: 0 is out of range; use 1 to 1000, or leave it out"},
		"no wait":             {"tenants:\n  acme: {max_queue_wait: 0s}", ":2: tenants.acme.max_queue_wait: 0s is out of range; use 100ms to 1h, or leave it out"},
		"no money":            {"tenants:\n  acme: {budget: {tokens: 1, money: 0, window: month}}", ":2: tenants.acme.budget.money: 0 is out of range"},
		"no memory":           {"cache: {memory_mb: 0}", ":1: cache.memory_mb: 0 is out of range"},
		"no tries":            {fmt.Sprintf(backend, "") + "    retry: {max_tries: 0}", ":5: models.m.retry.max_tries: 0 is out of range"},
		"no share of calls":   {fmt.Sprintf(backend, ", weight: 0"), ":4: models.m.backends[0].weight: 0 is out of range"},
		"no partition":        {"router: {partitions: []}", ":1: router.partitions: the list is empty; list some of 0 to 3, or leave it out for all"},
		"no way of going on":  {fmt.Sprintf(backend, "") + "    midstream: {order: []}", ":5: models.m.midstream.order: the list is empty; write [error] to try nothing"},
		"line break in key":   {fmt.Sprintf(backend, ", api_key: \"sk-1\\n\""), ":4: models.m.backends[0].api_key: it holds a character that no header can; remove spaces"},
		"tenant name":         {"tenants:\n  a.b: {weight: 2}", ":2: tenants.a.b: "},
		"tries":               {fmt.Sprintf(backend, "") + "    retry: {max_tries: -1}", ":5: models.m.retry.max_tries: -1 is out of range"},
		"retry max":           {fmt.Sprintf(backend, "") + "    retry: {initial: 3s, max: 1s}", ":5: models.m.retry.max: 1s is shorter than initial, 3s"},
		"budget":              {fmt.Sprintf(backend, "") + "    retry: {budget: 10}", `:5: models.m.retry.budget: "10" is not a share; write 1% to 100%`},
		"large budget":        {fmt.Sprintf(backend, "") + "    retry: {budget: 101%}", `:5: models.m.retry.budget: "101%" is not a share`},
		"hedge":               {fmt.Sprintf(backend, "") + "    hedge: {after: p99}", `:5: models.m.hedge.after: "p99" is neither p95 nor a duration up to 1h; write a duration`},
		"idle hedge":          {fmt.Sprintf(backend, "") + "    hedge: {max_share: 5%}", `:5: models.m.hedge.after: it is empty, so that nothing is hedged`},
		"context":             {fmt.Sprintf(backend, "") + "    context: -1", `:5: models.m.context: -1 is out of range`},
		"unknown fallback":    {fmt.Sprintf(backend, "") + "    fallback: [n]", `:5: models.m.fallback[0]: there is no model "n"; name a model`},
		"own fallback":        {fmt.Sprintf(backend, "") + "    fallback: [m]", `:5: models.m.fallback[0]: a model cannot stand in for itself`},
		"fallback twice":      {fmt.Sprintf(backend, "") + "    fallback: [n, n]\n  n: {backends: [{name: b, protocol: echo}]}", `:5: models.m.fallback[1]: "n" is named twice`},
		"way of going on":     {fmt.Sprintf(backend, "") + "    midstream: {order: [retry]}", `:5: models.m.midstream.order[0]: "retry" is not known; use continue, splice or error`},
		"way twice":           {fmt.Sprintf(backend, "") + "    midstream: {order: [splice, splice]}", `:5: models.m.midstream.order[1]: "splice" is there twice`},
		"way after error":     {fmt.Sprintf(backend, "") + "    midstream: {order: [error, splice]}", `:5: models.m.midstream.order[0]: nothing comes after error`},
		"times of going on":   {fmt.Sprintf(backend, "") + "    midstream: {max: -1}", `:5: models.m.midstream.max: -1 is out of range; use 1 to 100`},
		"continue":            {fmt.Sprintf(backend, ", continue: maybe"), `:4: models.m.backends[0].continue: "maybe" is not known; use none, prefill or tokens`},
		"tokens of anthropic": {anthropicBackend("continue: tokens"), ":3: models.m.backends[0].continue: only openai and grpc backends go on from token ids; use prefill"},
		"prefill of triton":   {rpcBackend("triton", "grpc://x:1", ", continue: prefill"), ":3: models.m.backends[0].continue: a triton backend does not go on with an answer; remove it"},
		"tokens of ollama":    {ollamaBackend("http://x", ", continue: tokens"), ":3: models.m.backends[0].continue: only openai and grpc backends go on from token ids; use prefill, or set protocol: openai or grpc"},
		"malformed":           {fmt.Sprintf(backend, ", on_malformed: ignore"), `:4: models.m.backends[0].on_malformed: "ignore" is not known; use fail or skip`},
		"malformed of ollama": {ollamaBackend("http://x", ", on_malformed: skip"), ":3: models.m.backends[0].on_malformed: only openai and anthropic backends have it; remove it"},
		"long model":          {"models:\n  " + strings.Repeat("x", 129) + ": {backends: [{name: b, protocol: echo}]}", ":2: models." + strings.Repeat("x", 129) + ": model name is too long"},
		"model of a tenant":   {"tenants:\n  a:\n    models: [echo, gpt-5]", `:3: tenants.a.models[1]: there is no model "gpt-5"; name a model of this configuration, or * for all`},
		"model twice":         {"tenants:\n  a: {models: [echo, echo]}", `:2: tenants.a.models[1]: "echo" is named twice; name each model once`},
		"first token":         {fmt.Sprintf(backend, "") + "    timeouts: {first_token: 20s, total: 10s}", ":5: models.m.timeouts.first_token: 20s is longer than the whole answer may take, 10s; make it shorter, or total longer"},
		"idle, no total":      {fmt.Sprintf(backend, "") + "    timeouts: {idle: 16m}", ":5: models.m.timeouts.idle: 16m is longer than the whole answer may take, 15m"},
		"too many tries":      {fmt.Sprintf(backend, "") + "    retry: {max_tries: 100000}", ":5: models.m.retry.max_tries: 100000 is out of range; use 1 to 100, or leave it out"},
		"partition twice":     {"router: {partitions: [0, 0]}", ":1: router.partitions[1]: 0 is there twice; name each partition once"},
		"endless budget":      {"tenants:\n  a: {budget: {tokens: 1, window: 90000h}}", `:2: tenants.a.budget.window: "90000h" is no span of time; write month, or a time from 1m to 8784h`},
		"no protocol":         {"models:\n  m:\n    backends: [{name: b, url: http://h}]", ":3: models.m.backends[0].protocol: the backend has none; use openai, anthropic"},
		"room for bodies":     {"ingest: {max_bodies_bytes: 10485759}", ":1: ingest.max_bodies_bytes: 10485759 is less than one body may have, 10485760; use at least ingest.max_body_bytes"},
		"broken second":       {"cache: {ttl: 1500ms}", ":1: cache.ttl: 1.5s cannot be kept to; use whole seconds"},
		"key tenant":          {"keys:\n- {id: a, tenant: a.b, sha256: " + someHash + "}", `:2: keys[0].tenant: "a.b" cannot be a tenant; use 1 to 64 of`},
		"key hash":            {"keys:\n- {id: a, tenant: a, sha256: abc}", ":2: keys[0].sha256: it is not the 64 hex digits of a SHA-256; write the output of"},
		"key id":              {"keys:\n- {tenant: a, sha256: " + someHash + "}", `:2: keys[0].id: "" is empty or taken`},
		"key of no model":     {"keys:\n- {id: a, tenant: a, models: [], sha256: " + someHash + "}", ":2: keys[0].models: the list is empty; list names of models, or leave it out for all"},
		"key twice the same":  {"keys:\n- {id: a, tenant: a, sha256: " + someHash + "}\n- {id: b, tenant: a, sha256: " + someHash + "}", `:3: keys[1].sha256: it is the same key as "a"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file := writeConfig(t, tt.file)
			_, err := loadConfig(file, nil, nil)
			if err == nil {
				t.Fatalf("%q was accepted", tt.file)
			}
			if want := "configuration: " + file + tt.want; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error = %v\nwant     %s…", err, want)
			}
		})
	}
}

func rpcBackend(protocol, url, more string) string {
	return fmt.Sprintf("models:\n  m:\n    backends: [{name: b, protocol: %s, url: '%s'%s}]", protocol, url, more)
}

func anthropicBackend(more string) string {
	return "models:\n  m:\n    backends: [{name: b, protocol: anthropic, url: http://x, " + more + "}]"
}

func ollamaBackend(url, more string) string {
	return "models:\n  m:\n    backends: [{name: b, protocol: ollama, url: '" + url + "'" + more + "}]"
}

func TestConfigOrder(t *testing.T) {
	file := writeConfig(t, "http: 127.0.0.1:1\nadmin: 127.0.0.1:1\nnats: 127.0.0.1:1\nsink: {path: file.db}\n")
	env := map[string]string{
		"WEIR_ADMIN": "127.0.0.1:2", "WEIR_NATS": "127.0.0.1:2", "WEIR_SINK_PATH": "env.db", "WEIR_DRAIN_TIMEOUT": "2m",
		"WEIR_LEASE": "", "WEIR_PORT": "tcp://10.0.0.1:80", "WEIR_REPLICAS": "3",
	}
	cfg, err := loadConfig(file, env, map[string]string{"nats": "127.0.0.1:3", "log-level": "debug"})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{cfg.HTTP, cfg.Admin, cfg.NATS, cfg.Sink.Path, cfg.DrainTimeout.String(), cfg.Lease.String(), cfg.LogLevel, cfg.Replicas}
	want := []any{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "env.db", "2m", "30s", "debug", 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]map[string]string{
		"configuration: WEIR_INGEST_MAX_STREAMS: ingest.max_streams: 0 is out of range": {"WEIR_INGEST_MAX_STREAMS": "0"},
		"configuration: WEIR_LEASE: lease: \"soon\" is not a duration":                  {"WEIR_LEASE": "soon"},
		"configuration: WEIR_REPLICAS: replicas: 2 is not known":                        {"WEIR_REPLICAS": "2"},
	} {
		if _, err := loadConfig(file, bad, nil); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("error = %v, want %s", err, name)
		}
	}
	if _, err := loadConfig(file, nil, map[string]string{"http": "x"}); err == nil || !strings.HasPrefix(err.Error(), `configuration: --http: http: "x" is not an address`) {
		t.Errorf("error = %v", err)
	}
}

func TestConfigExpansion(t *testing.T) {
	env := map[string]string{"A": "a: b # {c}", "N": "7", "EMPTY": ""}
	tests := map[string]string{
		"x${A}y": "xa: b # {c}y", "$${A}": "${A}", "$$": "$", "$A": "$A", "${N}${N}": "77", "${EMPTY}": "", "${}": "${}", "$$${N}": "$7",
	}
	for in, want := range tests {
		if got, missing := expand(in, env); got != want || missing != "" {
			t.Errorf("expand(%q) = %q, %q; want %q", in, got, missing, want)
		}
	}
	// A value never becomes structure, and a number may come from the environment.
	file := writeConfig(t, "data_dir: ${A}\nmodels: {m: {backends: [{name: \"${A}\", protocol: echo, max_in_flight: \"${N}\"}]}}")
	cfg, err := loadConfig(file, env, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := cfg.Models["m"].Backends[0]; b.Name != env["A"] || b.MaxInFlight != 7 || cfg.DataDir != env["A"] {
		t.Errorf("config = %+v", cfg)
	}
}

func TestConfigAnchors(t *testing.T) {
	file := writeConfig(t, "models:\n  a: &m {backends: [{name: b, protocol: echo}]}\n  c: *m\n")
	cfg, err := loadConfig(file, nil, nil)
	if err != nil || len(cfg.Models["c"].Backends) != 1 {
		t.Errorf("config = %+v, %v", cfg, err)
	}
}

// TestConfigIsOneDocument whatever marks stand around it.
func TestConfigIsOneDocument(t *testing.T) {
	for _, text := range []string{
		"---\nlease: 20s\n", "# about\n---\n# it\nlease: 20s\n---\n", "lease: 20s\n...\n", "lease: 20s\n...\n# nothing\n",
		"lease: 20s\n---\n# nothing\n\n# at all\n", "---\nlease: 20s\n...\n---\n...\n---\n", "--- {lease: 20s}\n--- ~\n",
	} {
		cfg, err := loadConfig(writeConfig(t, text), nil, nil)
		if err != nil || cfg.Lease.String() != "20s" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func exampleEnvironment() []string {
	return []string{"OPENAI_API_KEY=sk-very-secret", "ANTHROPIC_API_KEY=sk-ant-very-secret", "ACME_KEY_SHA256=" + someHash, "AUDIT_KEY_SHA256=" + strings.Repeat("a1", 32)}
}

const exampleFile = "../../weir.example.yaml"

func TestExampleConfig(t *testing.T) {
	cfg, err := loadConfig(exampleFile, environment(exampleEnvironment()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if key := cfg.Models["gpt-4.1"].Backends[0].APIKey; key.Reveal() != "sk-very-secret" {
		t.Errorf("API key = %q", key.Reveal())
	}
	defaults, err := loadConfig("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, want := *cfg, *defaults
	got.Models, want.Models, got.Keys, got.Tenants, got.Telemetry, got.Ingest, got.Cache, got.Sink, want.Sink = nil, nil, nil, nil, Telemetry{}, Ingest{}, Cache{}, Sink{}, Sink{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the example says of a default what is not so (-default +example):\n%s", diff)
	}
}

// TestConfigCommandLoadsAgain checks that what is printed is the same configuration, apart from secrets.
func TestConfigCommandLoadsAgain(t *testing.T) {
	for name, file := range map[string]string{"defaults": "", "example": exampleFile} {
		t.Run(name, func(t *testing.T) {
			args := []string{"config"}
			if file != "" {
				args = append(args, "--config", file)
			}
			out, _, err := callWith(t, exampleEnvironment(), nil, args...)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out, "very-secret") {
				t.Fatalf("a secret is printed:\n%s", out)
			}
			want, err := loadConfig(file, environment(exampleEnvironment()), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := loadConfig(writeConfig(t, out), nil, nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			same := cmp.Comparer(func(a, b inference.Secret) bool { return a.String() == b.String() })
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("(-before +after printing)\n%s", diff)
			}
		})
	}
}

func TestConfigHidesPasswords(t *testing.T) {
	servers := "nats://weir:pw1@n1:4222,nats://weir:pw1@n2:4222,nats://tok3n@n3:4222"
	for _, args := range [][]string{{"config"}, {"config", "--json"}} {
		out, _, err := callWith(t, []string{"WEIR_NATS=" + servers}, nil, args...)
		if err != nil || strings.Contains(out, "pw1") || strings.Contains(out, "tok3n") || !strings.Contains(out, "@n1:4222") {
			t.Errorf("%v printed %s, %v", args, out, err)
		}
	}
	to := busConfig(&Config{NATS: servers}, "x")
	if to.URL != "nats://n1:4222,nats://n2:4222,nats://tok3n@n3:4222" || to.Username != "weir" || to.Password != "pw1" {
		t.Errorf("bus config = %+v", to)
	}
	if to := busConfig(&Config{NATS: "127.0.0.1:4222"}, "x"); to.URL != "nats://127.0.0.1:4222" || to.Username != "" {
		t.Errorf("bus config = %+v", to)
	}
}

func TestConfigHidesPasswordsInURLs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weir.yaml")
	text := "models:\n  m: {backends: [{name: b, protocol: openai, url: 'http://u:pw1@h/v1'}]}\ntelemetry: {otlp_endpoint: 'http://tok3n@h:4318'}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := call(t, "config", "--config", file)
	if err != nil || strings.Contains(out, "pw1") || strings.Contains(out, "tok3n") || !strings.Contains(out, "@h/v1") || !strings.Contains(out, "@h:4318") {
		t.Errorf("%s, %v", out, err)
	}
}

func TestConfigSchemaFile(t *testing.T) {
	out, _, err := call(t, "config", "--schema")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "config.schema.json", out)
	schema := map[string]any{}
	if err := json.Unmarshal([]byte(out), &schema); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	var example any
	if err := yaml.Unmarshal(data, &example); err != nil {
		t.Fatal(err)
	}
	inSchema(t, "", schema, example)
}

// inSchema checks that every key of the document is described.
func inSchema(t *testing.T, key string, schema map[string]any, document any) {
	t.Helper()
	switch document := document.(type) {
	case map[string]any:
		for name, value := range document {
			properties, _ := schema["properties"].(map[string]any)
			below, ok := properties[name].(map[string]any)
			if !ok {
				below, ok = schema["additionalProperties"].(map[string]any)
			}
			if !ok {
				t.Errorf("the schema does not have %s", join(key, name))
				continue
			}
			inSchema(t, join(key, name), below, value)
		}
	case []any:
		items, ok := schema["items"].(map[string]any)
		if !ok {
			t.Errorf("the schema says that %s is no list", key)
		}
		for _, item := range document {
			inSchema(t, key, items, item)
		}
	default:
		if schema["type"] == "object" || schema["type"] == "array" {
			t.Errorf("the schema says that %s is an %s", key, schema["type"])
		}
	}
}

func TestCheckCommand(t *testing.T) {
	good, bad := writeConfig(t, "lease: 20s"), writeConfig(t, "\nlease: 20")
	if out, _, err := call(t, "check", good); err != nil || out != good+" is valid: 1 model, 0 keys\n" {
		t.Errorf("check = %q, %v", out, err)
	}
	if out, _, err := call(t, "check", bad); exitCode(err) != 1 || out != "" || !strings.Contains(err.Error(), ":2: lease: ") {
		t.Errorf("check = %q, %v", out, err)
	}
	out, _, err := call(t, "check", bad, "--json")
	var report checked
	want := checked{File: bad, Mistakes: []finding{{bad + ":2", "lease", `"20" is not a duration; write a number with its unit, such as 200ms, 30s or 5m`, ""}}, Warnings: []finding{}}
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || err == nil || !cmp.Equal(report, want) {
		t.Errorf("check --json = %q, %v", out, err)
	}
	if _, _, err := call(t, "check", filepath.Join(t.TempDir(), "none.yaml")); exitCode(err) != 1 {
		t.Errorf("error = %v", err)
	}
}

func TestRefusesToListenBeyondLoopbackWithoutKeys(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--http", "0.0.0.0:0"}, "http: refusing to listen on 0.0.0.0:0 without API keys"},
		{[]string{"serve", "--http", ":0"}, "http: refusing"},
		{[]string{"serve", "--http", "127.0.0.1:0", "--nats", "0.0.0.0:0"}, "nats: refusing"},
	} {
		_, _, err := call(t, append(tt.args, "--data-dir", t.TempDir())...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "create one with weir keys create") {
			t.Errorf("%v: error = %v", tt.args, err)
		}
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "127.9.9.9:1": true, "0.0.0.0:1": false, ":1": false, "example.com:1": false, "[::]:1": false} {
		if loopback(address) != want {
			t.Errorf("loopback(%q) = %v", address, !want)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	b := Backend{APIKey: "sk-very-secret"}
	data, _ := json.Marshal(b)
	var text bytes.Buffer
	fmt.Fprintf(&text, "%v %+v %#v %s %s", b, b, b, b.APIKey, data)
	if strings.Contains(text.String(), "very-secret") {
		t.Errorf("printed: %s", &text)
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 200 * time.Millisecond: "200ms", 30 * time.Second: "30s", 5 * time.Minute: "5m", time.Hour: "1h",
		90 * time.Minute: "1h30m", 10*time.Minute + 10*time.Second: "10m10s", 20 * time.Hour: "20h",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v = %q, want %q", d, got, want)
		}
	}
}
