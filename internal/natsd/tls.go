package natsd

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-llm/weir/internal/certs"
)

// TLS of the listener. The files are followed: the next handshake uses what replaced them. Connections within the process
// stay plain.
type TLS struct {
	Cert, Key  string // PEM files
	ClientCA   string // PEM file; with ClientAuth
	ClientAuth certs.Auth

	// CA is what the operator's context names as the authority of Cert, and ClientCert and ClientKey the certificate that it
	// calls with. Optional: by default Cert itself is trusted.
	CA, ClientCert, ClientKey string
}

func (t TLS) enabled() bool {
	return t.Cert != "" || t.Key != "" || t.ClientCA != "" || t.ClientAuth != ""
}

// secure adds TLS to the options. The server's own reload is for configuration files only; it hands the configuration to
// crypto/tls for each connection, so that the hook in it is what follows the files.
func secure(o *server.Options, cfg Config) (err error) {
	if !cfg.TLS.enabled() {
		return nil
	}
	o.TLSConfig, err = certs.Server(certs.ServerConfig{
		Cert: cfg.TLS.Cert, Key: cfg.TLS.Key, ClientCA: cfg.TLS.ClientCA, ClientAuth: cfg.TLS.ClientAuth, Logger: cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("TLS for NATS clients: %w", err)
	}
	o.TLS, o.TLSVerify = true, cfg.TLS.ClientAuth == certs.AuthRequire
	return nil
}

// hostname is the name by which this machine reaches the listener and which the certificate has, or the address as it is.
func (t TLS) hostname(ip net.IP) (string, error) {
	names := []string{ip.String()}
	switch {
	case ip.IsUnspecified():
		names = []string{"127.0.0.1", "::1", "localhost"}
	case ip.IsLoopback():
		names = append(names, "localhost")
	}
	if !t.enabled() {
		return names[0], nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return "", fmt.Errorf("TLS for NATS clients: %w", err)
	}
	for _, name := range names {
		if pair.Leaf.VerifyHostname(name) == nil {
			return name, nil
		}
	}
	for _, name := range pair.Leaf.DNSNames {
		if !strings.Contains(name, "*") {
			return name, nil
		}
	}
	return names[0], nil
}

// cliContext completes the operator's context with what it needs to trust the server.
func (t TLS) cliContext(c cliContext) (_ cliContext, err error) {
	if !t.enabled() {
		return c, nil
	}
	if c.CA = t.CA; c.CA == "" {
		c.CA = t.Cert
	}
	c.Cert, c.Key = t.ClientCert, t.ClientKey
	for _, file := range []*string{&c.CA, &c.Cert, &c.Key} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil {
			return c, fmt.Errorf("files of the operator's nats context: %w", err)
		}
	}
	return c, nil
}
