package callout

import (
	"fmt"

	"github.com/nats-io/nkeys"
)

// Pairs are the key pairs of a callout: the servers have the public halves, who answers has the seeds.
type Pairs struct {
	Issuer     string `json:"issuer"`
	XKey       string `json:"xkey"`
	IssuerSeed string `json:"issuer_seed"`
	XKeySeed   string `json:"xkey_seed"`
}

// NewPairs makes new ones.
func NewPairs() (Pairs, error) {
	issuer, err := nkeys.CreateAccount()
	if err != nil {
		return Pairs{}, fmt.Errorf("make an account key: %w", err)
	}
	xkey, err := nkeys.CreateCurveKeys()
	if err != nil {
		return Pairs{}, fmt.Errorf("make a curve key: %w", err)
	}
	var p Pairs
	for _, half := range []struct {
		pair         nkeys.KeyPair
		public, seed *string
	}{{issuer, &p.Issuer, &p.IssuerSeed}, {xkey, &p.XKey, &p.XKeySeed}} {
		if *half.public, err = half.pair.PublicKey(); err != nil {
			return Pairs{}, err
		}
		seed, err := half.pair.Seed()
		if err != nil {
			return Pairs{}, err
		}
		*half.seed = string(seed)
	}
	return p, nil
}
