package main

import (
	"fmt"
	"slices"
	"time"
)

// checkOdd notes what a process can run with, and is hardly meant. It is no mistake, because it may become odd by itself,
// or be meant for another process that reads the same file.
func (c *Config) checkOdd(f *findings, now time.Time) {
	for i, k := range c.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		if expiry, err := parseExpiry(k.Expires, time.Time{}); err == nil && !expiry.IsZero() && !expiry.After(now) {
			f.odd(join(at, "expires"), "remove the key, or give it another day", "the key %s expired on %s and opens nothing", k.ID, expiry.UTC().Format(time.DateOnly))
		}
		for n, model := range k.Models {
			if _, known := c.Models[model]; !known && model != anyModel {
				f.odd(fmt.Sprintf("%s[%d]", join(at, "models"), n), "add it under models, or correct the name", "there is no model %q in this configuration", model)
			}
		}
	}
}

// checkKeyless notes what needs a key when none is configured. There may be some on NATS, of which a file knows nothing.
func (c *Config) checkKeyless(f *findings) {
	if len(c.Keys) > 0 {
		return
	}
	const next = "make one with weir keys create, or add one under keys"
	if slices.Contains(c.Ingest.CORS.Origins, "*") {
		f.odd("ingest.cors.origins", next, "a star holds only while there is a key, and this configuration has none")
	}
	if !loopback(c.HTTP) {
		f.odd("http", next+"; or listen on 127.0.0.1", "beyond loopback it needs a key, and this configuration has none")
	}
}

// checkServed refuses what weir serve with its embedded NATS server cannot have, and what that server is for when it is
// another one.
func (c *Config) checkServed(f *findings) {
	if c.externalNATS() {
		f.when(c.TLS.NATS.given(), "tls.nats", "remove it, and set tls.client for the connection to that server", "it is for the embedded server, and %s is another one", redactUser(c.NATS))
		return
	}
	f.when(c.Replicas > 1, "replicas", "use 1, or name the servers of the cluster with nats: nats://…", "the embedded NATS server is a single one, which has no room for %d", c.Replicas)
	f.when(c.AuthCallout.IssuerSeed != "", "auth_callout", "remove it, or name the server that asks with nats: nats://…", "the embedded NATS server knows the API keys by itself")
}
