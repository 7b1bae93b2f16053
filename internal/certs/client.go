package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
)

// ClientConfig is a caller's.
type ClientConfig struct {
	CA        string // PEM file of the authorities that a server's certificate must come from; default: those of the system
	Cert, Key string // PEM files of a certificate of one's own; optional

	Logger *slog.Logger // optional
}

// Validate reports settings that contradict each other, without reading a file.
func (c ClientConfig) Validate() error {
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("a certificate of one's own needs both cert and key: name the two PEM files, or neither")
	}
	return nil
}

// Client is what a caller needs for a handshake, as it is in the files now. It is safe for concurrent use.
type Client struct {
	own  *followed[*tls.Certificate] // nil without a certificate of one's own
	pool *followed[*x509.CertPool]   // nil for the authorities of the system
}

// NewClient reads the files, and from then on follows them.
func NewClient(c ClientConfig) (_ *Client, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	client := &Client{}
	if c.CA != "" {
		client.pool, err = follow(c.Logger, func() (*x509.CertPool, error) { return readPool(c.CA) }, c.CA)
	}
	if err == nil && c.Cert != "" {
		client.own, err = follow(c.Logger, func() (*tls.Certificate, error) { return readPair(c.Cert, c.Key) }, c.Cert, c.Key)
	}
	return client, err
}

// HasCertificate reports whether the caller has a certificate of its own.
func (c *Client) HasCertificate() bool { return c.own != nil }

// Certificate is the caller's own. It is called only when there is one.
func (c *Client) Certificate() (tls.Certificate, error) { return *c.own.value(), nil }

// Roots are the authorities that a server's certificate must come from; nil stands for those of the system.
func (c *Client) Roots() (*x509.CertPool, error) {
	if c.pool == nil {
		return nil, nil
	}
	return c.pool.value(), nil
}
