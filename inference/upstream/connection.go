package upstream

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/certs"
)

const (
	// streamWindow is how much a server may send ahead on one stream of an HTTP/2 connection. All windows together fit into
	// that of the connection, so that a stream nobody reads at the moment does not hold up the others.
	streamWindow = 256 << 10

	pingAfter   = 15 * time.Second // of silence on an HTTP/2 connection
	pingTimeout = 10 * time.Second // then it is given up, and with it the calls on it
)

// Connection says how a server is reached. The zero value connects directly, to allowed addresses, with the authorities
// of the system, and takes HTTP/2 when the server offers it in the TLS handshake.
type Connection struct {
	Addresses Addresses
	Proxy     inference.Secret // http, https or socks5 URL, with credentials if need be; the environment is not asked
	CA        string           // PEM file of the authorities that a server's certificate must come from, read once
	H2C       bool             // HTTP/2 without TLS, for servers that are known to speak it
}

// Validate reports the first setting that cannot work with the server's URL.
func (c Connection) Validate(server string) error {
	secure := strings.HasPrefix(server, "https:")
	if c.CA != "" && !secure {
		return errors.New("a ca is for TLS: write the url with https, or remove ca")
	}
	if c.H2C && secure {
		return errors.New("h2c is HTTP/2 without TLS, and with TLS it is agreed on by itself: remove h2c")
	}
	if _, err := c.proxy(); err != nil {
		return err
	}
	if c.H2C && c.Proxy != "" && !strings.HasPrefix(c.Proxy.Reveal(), "socks5") {
		return errors.New("h2c does not go through an HTTP proxy: remove h2c, or use a socks5 proxy")
	}
	return nil
}

// proxy is the proxy's URL, or nil. The error does not quote it: it may hold a password.
func (c Connection) proxy() (*url.URL, error) {
	if c.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Proxy.Reveal())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h" {
		return nil, errors.New("proxy is not the URL of one: write it like http://10.0.0.3:3128 or socks5://10.0.0.3:1080")
	}
	return u, nil
}

// A connection has its two buffers for life: the more of what arrived during a write is read at once, the fewer frames it leaves
// in, but thousands of connections must not take more than they use.
const (
	connectionsBytes      = 8 << 20 // for what all connections of a backend read
	leastRead, mostRead   = 4 << 10, 16 << 10
	leastWrite, mostWrite = 1 << 10, 4 << 10 // the head of a request, and the body if it is short
)

// buffers are how much each of so many connections reads and writes at once.
func buffers(connections int) (read, write int) {
	read = min(max(connectionsBytes/connections, leastRead), mostRead) &^ (leastRead - 1)
	return read, min(max(read/4, leastWrite), mostWrite)
}

// transport makes the pool of connections. It bounds no calls: whoever picks the backend does.
func (c Connection) transport(config Config) (*http.Transport, error) {
	proxy, err := c.proxy()
	if err != nil {
		return nil, err
	}
	read, write := buffers(config.MaxInFlight)
	t := &http.Transport{
		DialContext:         c.Addresses.Dialer(config.Timeouts.Connect).DialContext,
		ReadBufferSize:      read,
		WriteBufferSize:     write,
		TLSHandshakeTimeout: config.Timeouts.Connect,
		MaxIdleConns:        config.MaxInFlight,
		MaxIdleConnsPerHost: config.MaxInFlight,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // a compressed stream arrives late and in lumps
		Protocols:           &http.Protocols{},
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamWindow, SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingAfter,
		},
	}
	switch {
	case c.H2C:
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(strings.HasPrefix(config.URL, "https:"))
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	if c.CA != "" {
		roots, err := certs.NewClient(certs.ClientConfig{CA: c.CA})
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if t.TLSClientConfig.RootCAs, err = roots.Roots(); err != nil {
			return nil, err
		}
	}
	return t, nil
}
