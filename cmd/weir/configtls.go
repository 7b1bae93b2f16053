package main

import (
	"crypto/tls"
	"fmt"

	"github.com/weir-llm/weir/internal/certs"
)

// given reports whether anything is set: half a configuration must not pass for none.
func (t ServerTLS) given() bool { return t != ServerTLS{} }

func (t ServerTLS) certs() certs.ServerConfig {
	return certs.ServerConfig{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, ClientAuth: t.ClientAuth}
}

func (c *Config) checkTLS(f *findings) {
	for _, side := range []struct {
		key string
		tls ServerTLS
	}{{"tls.http", c.TLS.HTTP}, {"tls.nats", c.TLS.NATS}} {
		if !side.tls.given() {
			continue
		}
		if err := side.tls.certs().Validate(); err != nil {
			f.wrong(side.key, "", "%v", err)
		}
	}
	if err := (certs.ClientConfig{CA: c.TLS.Client.CA, Cert: c.TLS.Client.Cert, Key: c.TLS.Client.Key}).Validate(); err != nil {
		f.wrong("tls.client", "", "%v", err)
	}
}

func (c *Config) httpScheme() string {
	if c.TLS.HTTP.given() {
		return "https"
	}
	return "http"
}

// httpTLS is nil for a plain door. The door speaks HTTP/2 with who can.
func (n *node) httpTLS() (*tls.Config, error) {
	if !n.cfg.TLS.HTTP.given() {
		return nil, nil
	}
	c := n.cfg.TLS.HTTP.certs()
	c.Protocols, c.Logger = []string{"h2", "http/1.1"}, n.log
	config, err := certs.Server(c)
	if err != nil {
		return nil, fmt.Errorf("tls.http: %w", err)
	}
	return config, nil
}
