package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

// validate reports the first value that cannot work.
func (c *Config) validate() *configError {
	checks := []func() *configError{
		c.checkChoices, c.checkAddresses, c.checkTLS, c.checkTimes, c.checkModels,
		c.checkKeys, c.checkCallout, c.checkCurrency, c.checkTenants, c.checkCache, c.Router.check,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func problem(key, next, format string, args ...any) *configError {
	return &configError{Key: key, Next: next, Problem: fmt.Sprintf(format, args...)}
}

func (c *Config) checkChoices() *configError {
	v := reflect.ValueOf(c).Elem()
	for field, value := range v.Fields() {
		enum, ok := field.Tag.Lookup("enum")
		if choices := strings.Split(enum, ","); ok && !slices.Contains(choices, value.String()) {
			return problem(keyName(field), "use "+strings.Join(choices, " or "), "%q is not known", value.String())
		}
	}
	if c.DataDir == "" {
		return problem("data_dir", "name a directory, such as ./weir-data", "it is empty")
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		return problem("replicas", "use 1 on a single server, 3 or 5 on a cluster", "%d replicas cannot be had", c.Replicas)
	}
	if err := c.Network.check(); err != nil {
		return err
	}
	return c.Ingest.check()
}

func (c *Config) checkAddresses() *configError {
	if err := checkListen("http", c.HTTP); err != nil {
		return err
	}
	if c.Admin != off {
		if err := checkListen("admin", c.Admin); err != nil {
			return err
		}
	}
	switch {
	case c.Context != "": // it names the server
	case c.externalNATS():
		for server := range strings.SplitSeq(c.NATS, ",") {
			if u, err := url.Parse(strings.TrimSpace(server)); err != nil || u.Host == "" {
				return problem("nats", "write nats://host:4222; several servers are separated by commas", "%q is not the URL of a NATS server", withoutUser(server))
			}
		}
	default:
		if err := checkListen("nats", c.NATS); err != nil {
			return err
		}
	}
	if endpoint := c.Telemetry.OTLPEndpoint; endpoint != "" && !webURL(endpoint) {
		return problem("telemetry.otlp_endpoint", "write a URL such as http://127.0.0.1:4318", "%q is not the URL of a collector", endpoint)
	}
	return nil
}

func checkListen(key, address string) *configError {
	const next = "write host:port, such as 127.0.0.1:8080, or port 0 for any"
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return problem(key, next, "%q is not an address", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return problem(key, next, "%q is not a port", port)
	}
	return nil
}

// externalNATS reports whether nats names a server to connect to rather than an address to listen on.
func (c *Config) externalNATS() bool { return strings.Contains(c.NATS, "://") || c.Context != "" }

// checkOpen refuses a listener that others can reach. It is for when no key exists to ask them for.
func (c *Config) checkOpen(serve bool) error {
	for _, listener := range []struct {
		key, address string
		used         bool
	}{{"http", c.HTTP, true}, {"nats", c.NATS, serve && !c.externalNATS()}} {
		if listener.used && !loopback(listener.address) {
			return problem(listener.key, "create one with weir keys create, add a key under keys, or listen on 127.0.0.1",
				"refusing to listen on %s without API keys: everyone who can reach it could use it", listener.address)
		}
	}
	return nil
}

func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkTimes() *configError {
	if c.Lease < Duration(time.Second) {
		return problem("lease", "use at least 1s; 30s is the default", "%s is too short to renew", c.Lease)
	}
	if c.DrainTimeout < Duration(time.Second) {
		return problem("drain_timeout", "use at least 1s; 30s is the default", "%s is too short to stop in order", c.DrainTimeout)
	}
	return nil
}

func (c *Config) checkModels() *configError {
	tokens := map[string]string{}
	for _, name := range c.modelNames() {
		key := join("models", name)
		if _, err := schemas.EncodeModel(name); err != nil {
			return problem(key, "use a shorter name", "%s", schemas.AsError(err).Message)
		}
		tokens[name] = key
		if err := checkModel(key, c.Models[name]); err != nil {
			return err
		}
		if err := c.checkRecovery(key, name); err != nil {
			return err
		}
	}
	return nil
}

func checkModel(key string, m Model) *configError {
	if len(m.Backends) == 0 {
		return problem(join(key, "backends"), "add one: - {name: mine, protocol: openai, url: http://host:8000/v1}", "the model has no backend")
	}
	if err := checkBalance(key, m); err != nil {
		return err
	}
	if m.CountTokens != "" && m.CountTokens != countEstimate && m.CountTokens != countExact {
		return problem(join(key, "count_tokens"), "use estimate or exact", "%q is not known", m.CountTokens)
	}
	if err := m.Price.check(join(key, "price")); err != nil {
		return err
	}
	if err := checkMidstream(join(key, "midstream"), m.Midstream); err != nil {
		return err
	}
	names := map[string]bool{}
	for i, b := range m.Backends {
		at := fmt.Sprintf("%s.backends[%d]", key, i)
		if err := checkBackend(at, b); err != nil {
			return err
		}
		if err := checkContinue(at, b); err != nil {
			return err
		}
		if err := checkConnection(at, b); err != nil {
			return err
		}
		if names[b.Name] {
			return problem(join(at, "name"), "give each backend of a model its own name", "there is already a backend %q", b.Name)
		}
		names[b.Name] = true
	}
	return nil
}

func checkBackend(at string, b Backend) *configError {
	switch {
	case b.Name == "":
		return problem(join(at, "name"), "name it: it is what results, logs and metrics show", "the backend has no name")
	case !slices.Contains(protocols(), b.Protocol):
		return problem(join(at, "protocol"), "use "+either(protocols()), "%q is not known", b.Protocol)
	case b.Echo.Tokens < 0 || b.Echo.IntervalMS < 0:
		return problem(join(at, "echo"), "use numbers from 0", "a dial is negative")
	case b.MaxInFlight < 0:
		return problem(join(at, "max_in_flight"), "use a number from 1", "%d is out of range", b.MaxInFlight)
	case b.MaxTokens < 0:
		return problem(join(at, "max_tokens"), "use a number from 1", "%d is out of range", b.MaxTokens)
	case strings.ContainsFunc(string(b.APIKey), func(r rune) bool { return r <= ' ' || r > '~' }):
		return problem(join(at, "api_key"), "remove spaces and line breaks, which a file or a copy may have added", "it holds a character that no header can")
	case overGRPC(b.Protocol):
		return checkRPC(at, b)
	case b.Protocol != "echo" && !webURL(b.URL):
		return problem(join(at, "url"), "write the base URL with the version, such as https://api.openai.com/v1", "%q is not a URL", withoutUser(b.URL))
	case b.Protocol == "echo" && b.URL != "":
		return problem(join(at, "url"), "remove it, or set protocol: openai", "an echo backend calls nobody")
	case b.Protocol != "openai" && b.MaxCompletionTokens:
		return problem(join(at, "max_completion_tokens"), "remove it, or set protocol: openai", "only an openai backend has it")
	case b.Protocol != "anthropic" && b.MaxTokens != 0:
		return problem(join(at, "max_tokens"), "remove it, or set protocol: anthropic", "only an anthropic or triton backend has it")
	case b.Template != "":
		return problem(join(at, "template"), "remove it, or set protocol: triton", "only a triton backend has it")
	case b.Protocol != "anthropic" && b.AnthropicVersion != "":
		return problem(join(at, "anthropic_version"), "remove it, or set protocol: anthropic", "only an anthropic backend has it")
	case anthropic.CheckVersion(b.AnthropicVersion) != nil:
		return problem(join(at, "anthropic_version"), "use "+anthropic.Version2023+" or "+anthropic.Version2026, "%q is not a version", b.AnthropicVersion)
	case b.Protocol == "anthropic" && b.RequireFinishReason != nil:
		return problem(join(at, "require_finish_reason"), "remove it", "it means nothing to an anthropic backend")
	case b.Protocol != "echo" && b.Echo != (Echo{}):
		return problem(join(at, "echo"), "remove it, or set protocol: echo", "only an echo backend has these dials")
	}
	return checkOllama(at, b)
}

func webURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

func (c *Config) checkKeys() *configError {
	ids, sums := map[string]bool{}, map[string]string{}
	for i, k := range c.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		sum, err := hex.DecodeString(k.SHA256)
		switch {
		case k.ID == "" || ids[k.ID]:
			return problem(join(at, "id"), "give every key an id of its own", "%q is empty or taken", k.ID)
		case schemas.ValidateTenant(k.Tenant) != nil:
			return problem(join(at, "tenant"), "use 1 to 64 of A-Z a-z 0-9 _ -", "%q cannot be a tenant", k.Tenant)
		case err != nil || len(sum) != 32:
			return problem(join(at, "sha256"), `write the output of: printf %s "$KEY" | sha256sum`, "it is not the 64 hex digits of a SHA-256")
		case k.Scope != "" && k.Scope != string(keys.ScopeFull) && k.Scope != string(keys.ScopeAudit):
			return problem(join(at, "scope"), "use full or audit", "%q is not known", k.Scope)
		case sums[string(sum)] != "":
			return problem(join(at, "sha256"), "make a new key for one of them", "it is the same key as %q", sums[string(sum)])
		}
		if _, err := parseExpiry(k.Expires, time.Time{}); err != nil {
			return problem(join(at, "expires"), err.Error(), "%q is not a time", k.Expires)
		}
		if k.Models != nil && len(k.Models) == 0 {
			return problem(join(at, "models"), "list names of models, or leave it out for all", "the list is empty")
		}
		for _, model := range k.Models {
			if _, err := schemas.EncodeModel(model); err != nil {
				return problem(join(at, "models"), "list names of models, or leave it out for all", "%s", schemas.AsError(err).Message)
			}
		}
		ids[k.ID], sums[string(sum)] = true, k.ID
	}
	return nil
}

func (c *Config) checkCallout() *configError {
	a := c.AuthCallout
	if a.IssuerSeed == "" {
		if a != (AuthCallout{}) {
			return problem("auth_callout.issuer_seed", "weir keys issuer makes one; or remove auth_callout", "it is empty")
		}
		return nil
	}
	if _, _, err := callout.ParseSeeds(a.IssuerSeed.Reveal(), a.XKeySeed.Reveal()); err != nil {
		return problem("auth_callout", "weir keys issuer makes both seeds", "%s", err)
	}
	return nil
}
