package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/internal/keys"
)

// shownKey is a key in JSON.
type shownKey struct {
	ID      string        `json:"id"`
	Key     string        `json:"key,omitempty"` // only when it is created
	Tenant  string        `json:"tenant"`
	Models  []string      `json:"models"`
	Scope   keys.Scope    `json:"scope"`
	Created time.Time     `json:"created"`
	Secrets []shownSecret `json:"secrets"`
}

type shownSecret struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
}

func shown(r *keys.Record, all bool, now time.Time) shownKey {
	k := shownKey{ID: r.ID, Tenant: r.Tenant, Models: r.Models, Scope: r.Scope, Created: r.Created}
	for i := range r.Secrets {
		s := &r.Secrets[i]
		if state := s.State(now); all || state == keys.StateLive {
			k.Secrets = append(k.Secrets, shownSecret{s.Name(), state, s.Created, s.Expires, s.Revoked})
		}
	}
	return k
}

// printNewKey shows a key, for the only time. It alone goes to stdout, so that a script can take it.
func (c *cli) printNewKey(token keys.Token, r *keys.Record) error {
	if c.json {
		k := shown(r, true, time.Now())
		k.Key = token.Reveal()
		return json.NewEncoder(c.stdout).Encode(k)
	}
	fmt.Fprintf(c.stderr, "key %s of tenant %s, scope %s, %s. Keep it: it is not shown again.\n", r.ID, r.Tenant, r.Scope, models(r.Models))
	_, err := fmt.Fprintln(c.stdout, token.Reveal())
	return err
}

func (c *cli) printKey(r *keys.Record, all bool, now time.Time) error {
	k := shown(r, all, now)
	if len(k.Secrets) == 0 {
		return nil
	}
	if c.json {
		return json.NewEncoder(c.stdout).Encode(k)
	}
	for _, s := range k.Secrets {
		line := fmt.Sprintf("%s  %s  %-7s  %s  %s  %s  created %s", k.ID, s.Name, s.State, k.Tenant, k.Scope, models(k.Models), minute(s.Created))
		if !s.Expires.IsZero() {
			line += "  expires " + minute(s.Expires)
		}
		if _, err := fmt.Fprintln(c.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func (c *cli) printPairs(p callout.Pairs) error {
	if c.json {
		return json.NewEncoder(c.stdout).Encode(p)
	}
	_, err := fmt.Fprintf(c.stdout, `# for the nats-servers (nats.conf)
WEIR_NATS_CALLOUT_ISSUER=%s
WEIR_NATS_CALLOUT_XKEY=%s
# for weir ingest
WEIR_AUTH_CALLOUT_ISSUER_SEED=%s
WEIR_AUTH_CALLOUT_XKEY_SEED=%s
`, p.Issuer, p.XKey, p.IssuerSeed, p.XKeySeed)
	return err
}
