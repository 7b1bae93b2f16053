package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/internal/keys"
)

// keysWithin is how long a start waits to know all API keys.
const keysWithin = 15 * time.Second

// openKeys makes the ring of API keys that both doors of ingest ask, and lets it decide about NATS connections. It returns
// when all keys are known, so that nobody is let in, or refused, for want of knowing.
func (n *node) openKeys(ctx context.Context, serve bool) error {
	configured, err := configuredKeys(n.cfg.Keys)
	if err != nil {
		return err
	}
	if n.keys, err = keys.New(keys.Config{Store: n.bus.Keys(), Configured: configured, Logger: n.log}); err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	n.onClose(func() error { stop(); owned.Wait(); return nil })
	owned.Go(func() { _ = n.keys.Run(running) })
	select {
	case <-n.keys.Listed():
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(keysWithin):
		return fmt.Errorf("the API keys could not be read within %s: is JetStream up on the NATS servers?", keysWithin)
	}
	if n.keys.Open() {
		if err := n.cfg.checkOpen(serve); err != nil {
			return err
		}
	}
	if n.nats != nil {
		n.nats.Admit(n.keys.Admit)
		owned.Go(func() { n.keys.Guard(running, n.nats) })
	}
	return n.openCallout(running, &owned)
}

// openCallout answers the auth callout of an external NATS, when the configuration says how.
func (n *node) openCallout(ctx context.Context, owned *sync.WaitGroup) error {
	c := n.cfg.AuthCallout
	if c.IssuerSeed == "" {
		return nil
	}
	responder, err := callout.New(callout.Config{
		Bus: n.bus, User: c.User, Password: c.Password.Reveal(), IssuerSeed: c.IssuerSeed.Reveal(), XKeySeed: c.XKeySeed.Reveal(), Logger: n.log,
	})
	if err != nil {
		return err
	}
	responder.Admit(n.keys.Admit)
	owned.Go(func() {
		defer responder.Close()
		var answering sync.WaitGroup
		defer answering.Wait()
		answering.Go(func() { n.keys.Guard(ctx, responder) })
		if err := responder.Run(ctx); err != nil {
			n.log.Error("the auth callout is not answered any more", "error", err)
		}
	})
	return nil
}

func configuredKeys(list []Key) ([]keys.Configured, error) {
	configured := make([]keys.Configured, len(list))
	for i, k := range list {
		expires, err := parseExpiry(k.Expires, time.Time{})
		if err != nil {
			return nil, err
		}
		configured[i] = keys.Configured{
			ID: k.ID, Tenant: k.Tenant, SHA256: k.SHA256, Models: k.Models, Scope: keys.Scope(k.Scope), Expires: expires,
		}
	}
	return configured, nil
}

// parseExpiry reads a day, a point in time, or a duration from now on; with a zero now a duration is refused, and an
// empty text is never.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && !now.IsZero() {
		return now.Add(d), nil
	}
	const absolute = "write a day such as 2027-12-31, or a time such as 2027-12-31T18:00:00Z"
	if now.IsZero() {
		return time.Time{}, errors.New(absolute)
	}
	return time.Time{}, fmt.Errorf("--expires %q: %s, or a duration such as 720h", text, absolute)
}
