package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/internal/certs/certstest"
)

const host = "weir.test"

// meet makes a handshake over a pipe and returns what the client learnt. An error is the client's, or the server's when
// only that one refused.
func meet(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	served := make(chan error, 1)
	go func() {
		defer far.Close()
		conn := tls.Server(far, server)
		_, err := conn.Write([]byte("x"))
		served <- err
	}()
	conn := tls.Client(near, client)
	_, err := conn.Read(make([]byte, 1)) // a client of TLS 1.3 learns here that it was refused
	near.Close()
	return conn.ConnectionState(), errors.Join(err, <-served)
}

func trusting(a *certstest.Authority) *tls.Config {
	return &tls.Config{RootCAs: a.Pool(), ServerName: host}
}

func newServer(t *testing.T, c certs.ServerConfig) *tls.Config {
	t.Helper()
	config, err := certs.Server(c)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestVersions(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t)
	pair := ca.Issue(host)
	server := newServer(t, certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, Protocols: []string{"h2", "http/1.1"}})
	for _, c := range []struct{ most, want uint16 }{{0, tls.VersionTLS13}, {tls.VersionTLS12, tls.VersionTLS12}, {tls.VersionTLS11, 0}} {
		client := trusting(ca)
		client.MinVersion, client.MaxVersion = tls.VersionTLS10, c.most
		client.NextProtos = []string{"h2"}
		state, err := meet(t, server, client)
		if c.want == 0 {
			if err == nil {
				t.Error("TLS 1.1 was accepted")
			}
			continue
		}
		if err != nil || state.Version != c.want || state.NegotiatedProtocol != "h2" {
			t.Errorf("version %x, protocol %q, %v; want %x", state.Version, state.NegotiatedProtocol, err, c.want)
		}
	}
}

func TestCertificatesOfClients(t *testing.T) {
	t.Parallel()
	ca, clients, others := certstest.NewAuthority(t), certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair, good, bad := ca.Issue(host), clients.Issue("client"), others.Issue("client")
	for _, c := range []struct {
		auth            certs.Auth
		none, good, bad bool
	}{
		{"", true, true, true}, {certs.AuthNone, true, true, true},
		{certs.AuthRequest, true, true, false}, {certs.AuthRequire, false, true, false},
	} {
		config := certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientAuth: c.auth}
		if c.auth == certs.AuthRequest || c.auth == certs.AuthRequire {
			config.ClientCA = clients.File()
		}
		server := newServer(t, config)
		for name, try := range map[string]struct {
			own  []tls.Certificate
			want bool
		}{"none": {nil, c.none}, "good": {[]tls.Certificate{good.Load(t)}, c.good}, "bad": {[]tls.Certificate{bad.Load(t)}, c.bad}} {
			client := trusting(ca)
			// Certificates alone would leave out one that the server does not ask for.
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if try.own == nil {
					return &tls.Certificate{}, nil
				}
				return &try.own[0], nil
			}
			if _, err := meet(t, server, client); (err == nil) != try.want {
				t.Errorf("client_auth %q, certificate %s: %v, want it accepted: %t", c.auth, name, err, try.want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t)
	pair, other, old := ca.Issue(host), ca.Issue(host), ca.Issue(host)
	ca.Expired(old, host)
	none := t.TempDir() + "/none.pem"
	for name, c := range map[string]struct {
		config certs.ServerConfig
		want   string
	}{
		"nothing":       {certs.ServerConfig{}, "both cert and key"},
		"no key":        {certs.ServerConfig{Cert: pair.Cert}, "both cert and key"},
		"no file":       {certs.ServerConfig{Cert: none, Key: pair.Key}, "no such file"},
		"another's key": {certs.ServerConfig{Cert: pair.Cert, Key: other.Key}, "does not match"},
		"swapped":       {certs.ServerConfig{Cert: pair.Key, Key: pair.Cert}, "write both as PEM"},
		"expired":       {certs.ServerConfig{Cert: old.Cert, Key: old.Key}, "has expired"},
		"auth":          {certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientAuth: "maybe"}, "use none, request or require"},
		"no authority":  {certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientAuth: certs.AuthRequire}, "needs client_ca"},
		"no use of it":  {certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientCA: ca.File()}, "only with client_auth"},
		"no CA file":    {certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientAuth: certs.AuthRequire, ClientCA: none}, "no such file"},
		"no CA in it":   {certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientAuth: certs.AuthRequire, ClientCA: pair.Key}, "no certificate in it"},
	} {
		if _, err := certs.Server(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, c := range map[string]certs.ClientConfig{"half": {Cert: pair.Cert}, "other half": {Key: pair.Key}, "no CA": {CA: none}, "no pair": {Cert: none, Key: none}} {
		if _, err := certs.NewClient(c); err == nil {
			t.Errorf("a client was made: %s", name)
		}
	}
}

// buffer is a log that handshakes write at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *buffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestReplacedFilesAreUsed(t *testing.T) {
	t.Parallel()
	var log buffer
	ca := certstest.NewAuthority(t)
	pair := ca.Issue(host)
	server := newServer(t, certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	shown := func() string {
		state, err := meet(t, server, trusting(ca))
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	first := pair.Serial(t)
	if got := shown(); got != first {
		t.Fatalf("certificate %s, want %s", got, first)
	}
	ca.Reissue(pair, host)
	second := pair.Serial(t)
	eventually(t, "the new certificate", func() bool { return shown() == second })

	// What is broken is told once, and the last good one stays.
	broken := "cannot be used"
	for _, damage := range []func(){
		func() { certstest.Replace(t, pair.Cert, []byte("half of a certifi")) },
		func() { ca.Expired(pair, host) },
		func() {
			if err := os.Remove(pair.Key); err != nil {
				t.Fatal(err)
			}
		},
	} {
		before := log.count(broken)
		damage()
		eventually(t, "the report", func() bool { return shown() == second && log.count(broken) > before })
	}
	ca.Reissue(pair, host)
	third := pair.Serial(t)
	eventually(t, "the mended certificate", func() bool { return shown() == third })
	if n := log.count(broken); n > 6 {
		t.Errorf("%d reports of three faults", n)
	}
}

// A client that was let in on an authority of yesterday has to show what counts today, whatever it remembers.
func TestReplacedAuthorityCounts(t *testing.T) {
	t.Parallel()
	ca, before, after := certstest.NewAuthority(t), certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair, old, young := ca.Issue(host), before.Issue("client"), after.Issue("client")
	file := before.File()
	server := newServer(t, certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, ClientCA: file, ClientAuth: certs.AuthRequire})
	client := func(p certstest.Pair) *tls.Config {
		c := trusting(ca)
		c.Certificates = []tls.Certificate{p.Load(t)}
		c.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		return c
	}
	yesterday := client(old)
	if _, err := meet(t, server, yesterday); err != nil {
		t.Fatal(err)
	}
	after.WriteTo(file)
	today := client(young)
	eventually(t, "the new authority", func() bool { _, err := meet(t, server, today); return err == nil })
	if _, err := meet(t, server, yesterday); err == nil {
		t.Error("a client of the old authority was let in")
	}
}

func TestClientFollowsItsFiles(t *testing.T) {
	t.Parallel()
	one, two := certstest.NewAuthority(t), certstest.NewAuthority(t)
	own, file := one.Issue("client"), one.File()
	c, err := certs.NewClient(certs.ClientConfig{CA: file, Cert: own.Cert, Key: own.Key})
	if err != nil || !c.HasCertificate() {
		t.Fatal(err)
	}
	two.WriteTo(file)
	two.Reissue(own, "client")
	eventually(t, "the new files", func() bool {
		roots, err := c.Roots()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := c.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err == nil && roots.Equal(two.Pool())
	})
	system, err := certs.NewClient(certs.ClientConfig{})
	if err != nil || system.HasCertificate() {
		t.Fatal(err)
	}
	if roots, err := system.Roots(); roots != nil || err != nil {
		t.Errorf("without a file: %v, %v", roots, err)
	}
}
