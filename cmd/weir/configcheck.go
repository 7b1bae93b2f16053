package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/schemas"
)

// validate checks what the bounds of single values do not say.
func (c *Config) validate(f *findings) {
	for _, check := range []func(*findings){
		c.checkAddresses, c.checkTLS, c.Network.check, c.Ingest.check, c.checkModels,
		c.checkKeys, c.checkCallout, c.checkCurrency, c.checkTenants, c.checkCache, c.Router.check,
	} {
		check(f)
	}
	f.when(c.DataDir == "", "data_dir", "name a directory, such as ./weir-data", "it is empty")
}

func (c *Config) checkAddresses(f *findings) {
	checkListen(f, "http", c.HTTP)
	if c.Admin != off {
		checkListen(f, "admin", c.Admin)
	}
	switch {
	case c.Context != "": // it names the server
	case c.externalNATS():
		for server := range strings.SplitSeq(c.NATS, ",") {
			u, err := url.Parse(strings.TrimSpace(server))
			f.when(err != nil || u.Host == "", "nats", "write nats://host:4222; several servers are separated by commas", "%q is not the URL of a NATS server", withoutUser(server))
		}
	default:
		checkListen(f, "nats", c.NATS)
	}
	endpoint := c.Telemetry.OTLPEndpoint
	f.when(endpoint != "" && !webURL(endpoint), "telemetry.otlp_endpoint", "write a URL such as http://127.0.0.1:4318", "%q is not the URL of a collector", withoutUser(endpoint))
}

func checkListen(f *findings, key, address string) {
	const next = "write host:port, such as 127.0.0.1:8080, or port 0 for any"
	_, port, err := net.SplitHostPort(address)
	if f.when(err != nil, key, next, "%q is not an address", address) {
		return
	}
	n, err := strconv.Atoi(port)
	f.when(err != nil || n < 0 || n > 65535, key, next, "%q is not a port", port)
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
			return &configError{
				Key: listener.key, Next: "create one with weir keys create, add a key under keys, or listen on 127.0.0.1",
				Problem: "refusing to listen on " + listener.address + " without API keys: everyone who can reach it could use it",
			}
		}
	}
	return nil
}

func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Config) checkKeys(f *findings) {
	ids, sums := map[string]bool{}, map[string]string{}
	for i, k := range c.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		f.when(k.ID == "" || ids[k.ID], join(at, "id"), "give every key an id of its own", "%q is empty or taken", k.ID)
		f.when(schemas.ValidateTenant(k.Tenant) != nil, join(at, "tenant"), "use 1 to 64 of A-Z a-z 0-9 _ -", "%q cannot be a tenant", k.Tenant)
		sum, err := hex.DecodeString(k.SHA256)
		if !f.when(err != nil || len(sum) != 32, join(at, "sha256"), `write the output of: printf %s "$KEY" | sha256sum`, "it is not the 64 hex digits of a SHA-256") {
			f.when(sums[string(sum)] != "", join(at, "sha256"), "make a new key for one of them", "it is the same key as %q", sums[string(sum)])
			sums[string(sum)] = k.ID
		}
		ids[k.ID] = true
		if _, err = parseExpiry(k.Expires, time.Time{}); err != nil {
			f.wrong(join(at, "expires"), err.Error(), "%q is not a time", k.Expires)
		}
		checkModelList(f, join(at, "models"), k.Models)
	}
}

// checkModelList checks names of models, of which an empty list has none.
func checkModelList(f *findings, key string, models []string) {
	const next = "list names of models, or leave it out for all"
	f.when(models != nil && len(models) == 0, key, next, "the list is empty")
	for i, model := range models {
		at := fmt.Sprintf("%s[%d]", key, i)
		if _, err := schemas.EncodeModel(model); err != nil {
			f.wrong(at, next, "%s", schemas.AsError(err).Message)
		}
		f.when(slices.Contains(models[:i], model), at, "name each model once", "%q is named twice", model)
	}
}

func (c *Config) checkCallout(f *findings) {
	a := c.AuthCallout
	if a.IssuerSeed == "" {
		f.when(a != (AuthCallout{}), "auth_callout.issuer_seed", "weir keys issuer makes one; or remove auth_callout", "it is empty")
		return
	}
	if _, _, err := callout.ParseSeeds(a.IssuerSeed.Reveal(), a.XKeySeed.Reveal()); err != nil {
		f.wrong("auth_callout", "weir keys issuer makes both seeds", "%s", err)
	}
}
