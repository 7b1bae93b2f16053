// Package certs makes TLS from certificate files that may be replaced while the process runs.
//
// What it guarantees: files that cannot be used are an error at the start. Later they are reported and the last good ones
// stay in use, so that a mistake in a rotation ends no service. A handshake never uses files that were replaced more than
// [checkEvery] before. What was agreed in earlier handshakes stays: replacing a file ends no connection (docs/adr/0012).
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

// Auth says what a server does about certificates of its clients.
type Auth string

// What a server may do about certificates of its clients.
const (
	AuthNone    Auth = "none"    // it does not ask for one
	AuthRequest Auth = "request" // it asks; a client may have none, but not a bad one
	AuthRequire Auth = "require" // a client without a good one is refused
)

// ServerConfig is a listener's.
type ServerConfig struct {
	Cert, Key  string // required: PEM files; the certificate's may hold its chain
	ClientCA   string // PEM file of the authorities that sign certificates of clients; only with ClientAuth
	ClientAuth Auth   // default AuthNone

	Protocols []string     // for ALPN, best first; optional
	Logger    *slog.Logger // optional
}

// Validate reports settings that contradict each other, without reading a file.
func (c ServerConfig) Validate() error {
	switch {
	case c.Cert == "" || c.Key == "":
		return errors.New("TLS needs both cert and key: name the two PEM files")
	case c.ClientAuth != "" && c.ClientAuth != AuthNone && c.ClientAuth != AuthRequest && c.ClientAuth != AuthRequire:
		return fmt.Errorf("client_auth %q is not known: use none, request or require", c.ClientAuth)
	case c.asks() && c.ClientCA == "":
		return fmt.Errorf("client_auth %s needs client_ca: name the PEM file of the authority that signs certificates of clients", c.ClientAuth)
	case !c.asks() && c.ClientCA != "":
		return errors.New("client_ca is checked only with client_auth: set it to request or require, or remove client_ca")
	}
	return nil
}

func (c ServerConfig) asks() bool { return c.ClientAuth == AuthRequest || c.ClientAuth == AuthRequire }

// Server reads the files and returns the configuration of a listener: TLS 1.2 at least, 1.3 with whoever can. It follows
// the files by itself, for as long as the configuration is used.
func Server(c ServerConfig) (*tls.Config, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	current, err := follow(c.Logger, c.read, c.Cert, c.Key, c.ClientCA)
	if err != nil {
		return nil, err
	}
	outer := c.base()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.value(), nil }
	return outer, nil
}

func (c ServerConfig) base() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: slices.Clone(c.Protocols)}
	if c.asks() {
		config.ClientAuth = tls.VerifyClientCertIfGiven
		if c.ClientAuth == AuthRequire {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		// A resumed session would be let in on the authorities of the day on which it began.
		config.SessionTicketsDisabled = true
	}
	return config
}

func (c ServerConfig) read() (*tls.Config, error) {
	config := c.base()
	certificate, err := readPair(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	config.Certificates = []tls.Certificate{*certificate}
	if c.asks() {
		config.ClientCAs, err = readPool(c.ClientCA)
	}
	return config, err
}

func readPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w; write both as PEM, the key without a password", cert, key, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("certificate %s has expired on %s: renew it", cert, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return &pair, nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities %s: there is no certificate in it; write PEM", file)
	}
	return pool, nil
}
