package client

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/weir-llm/weir/internal/certs"
)

// certs follows the PEM files of the configuration.
func (c *Config) certs() (*certs.Client, error) {
	files, err := certs.NewClient(certs.ClientConfig{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile, Logger: c.Logger})
	if err != nil {
		return nil, fmt.Errorf("TLS to the server: %w", err)
	}
	return files, nil
}

func newHTTPClient(files *certs.Client) (*http.Client, error) {
	roots, err := files.Roots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if files.HasCertificate() {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			own, err := files.Certificate()
			return &own, err
		}
	}
	return &http.Client{
		// A redirect would take the key to a place that nobody named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64,
			DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, TLSHandshakeTimeout: connectTimeout, IdleConnTimeout: 90 * time.Second,
		},
	}, nil
}
