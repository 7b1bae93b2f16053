package natsd

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/internal/certs/certstest"
)

func tlsConfig(t *testing.T, pair certstest.Pair) Config {
	cfg := testConfig(t.TempDir())
	cfg.TLS = TLS{Cert: pair.Cert, Key: pair.Key}
	return cfg
}

// dials connects and reports the number of the server's certificate.
func dials(s *Server, opts ...nats.Option) (serial string, err error) {
	nc, err := nats.Connect(s.ClientURL(), append(opts, nats.UserInfo(s.Username(), s.Password()), nats.Timeout(time.Minute))...)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	state, err := nc.TLSConnectionState()
	if err != nil {
		return "", err
	}
	return state.PeerCertificates[0].SerialNumber.String(), nil
}

func TestTLS(t *testing.T) {
	ca := certstest.NewAuthority(t)
	pair := ca.Issue("127.0.0.1", "localhost")
	s := startServer(t, tlsConfig(t, pair))
	if !strings.HasPrefix(s.ClientURL(), "tls://127.0.0.1:") {
		t.Errorf("ClientURL() = %s", s.ClientURL())
	}
	if got, err := dials(s, nats.RootCAs(ca.File())); err != nil || got != pair.Serial(t) {
		t.Errorf("certificate %s, %v", got, err)
	}
	if _, err := dials(s, nats.RootCAs(certstest.NewAuthority(t).File())); err == nil {
		t.Error("a server of another authority was trusted")
	}
	if _, err := dials(s, nats.Secure(&tls.Config{RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	// A caller that stays plain is refused before it can say who it is, and the process itself needs no TLS.
	if got := plainly(t, s); !strings.HasPrefix(got, "INFO ") || strings.Contains(got, "PONG") {
		t.Errorf("a plain connection got %q", got)
	}
	if _, err := streams(t, pipeline(t, s)).AccountInfo(timeout(t)); err != nil {
		t.Errorf("within the process: %v", err)
	}
}

// plainly speaks NATS without TLS and returns all that the server says.
func plainly(t *testing.T, s *Server) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.ClientURL(), "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT {\"user\":%q,\"pass\":%q,\"verbose\":false}\r\nPING\r\n", s.Username(), s.Password())
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(conn) // ends when the server cuts it
	return string(said)
}

// The next connection uses certificates that replaced those of the start; connections that are open stay.
func TestTLSFollowsItsFiles(t *testing.T) {
	ca, clients := certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair, authority := ca.Issue("127.0.0.1"), clients.File()
	cfg := tlsConfig(t, pair)
	cfg.TLS.ClientCA, cfg.TLS.ClientAuth = authority, certs.AuthRequire
	s := startServer(t, cfg)
	roots, own := nats.RootCAs(ca.File()), clients.Issue("client")
	if _, err := dials(s, roots); err == nil {
		t.Error("a client without a certificate was let in")
	}
	open := connect(t, s.ClientURL(), roots, nats.ClientCert(own.Cert, own.Key), nats.UserInfo(s.Username(), s.Password()))

	others := certstest.NewAuthority(t)
	young := others.Issue("client")
	ca.Reissue(pair, "127.0.0.1")
	others.WriteTo(authority)
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := dials(s, roots, nats.ClientCert(young.Cert, young.Key))
		if err == nil && got == pair.Serial(t) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("certificate %s, %v, want %s", got, err, pair.Serial(t))
		}
	}
	if _, err := dials(s, roots, nats.ClientCert(own.Cert, own.Key)); err == nil {
		t.Error("a client of the old authority was let in")
	}
	flush(t, open)
}

func TestTLSRefused(t *testing.T) {
	pair := certstest.NewAuthority(t).Issue("127.0.0.1")
	for name, broken := range map[string]TLS{
		"no key":       {Cert: pair.Cert},
		"no file":      {Cert: "none.pem", Key: pair.Key},
		"no authority": {Cert: pair.Cert, Key: pair.Key, ClientAuth: certs.AuthRequire},
		"no pair":      {ClientAuth: certs.AuthNone},
	} {
		cfg := testConfig(t.TempDir())
		cfg.TLS = broken
		s, err := New(cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "TLS for NATS clients") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The operator's context works as it is, by the name that the certificate has.
func TestOperatorContextWithTLS(t *testing.T) {
	ca := certstest.NewAuthority(t)
	for name, c := range map[string]struct {
		hosts []string
		want  string
		ca    string
	}{
		"address":           {[]string{"127.0.0.1"}, "tls://127.0.0.1:", ""},
		"localhost":         {[]string{"localhost"}, "tls://localhost:", ""},
		"authority is told": {[]string{"127.0.0.1"}, "tls://127.0.0.1:", ca.File()},
	} {
		cfg := tlsConfig(t, ca.Issue(c.hosts...))
		cfg.TLS.CA = c.ca
		s := startServer(t, cfg)
		if !strings.HasPrefix(s.ClientURL(), c.want) {
			t.Errorf("%s: ClientURL() = %s", name, s.ClientURL())
		}
		nc, _, err := natscontext.Connect(s.ContextFile())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := streams(t, nc).AccountInfo(timeout(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		nc.Close()
	}
	cfg := tlsConfig(t, ca.Issue("*.weir.test", "nats.weir.test"))
	cfg.TLS.ClientCert, cfg.TLS.ClientKey = "own.pem", "own.key"
	s := startServer(t, cfg)
	if !strings.HasPrefix(s.ClientURL(), "tls://nats.weir.test:") {
		t.Errorf("ClientURL() = %s, want the name in the certificate", s.ClientURL())
	}
	var written cliContext
	b, err := os.ReadFile(s.ContextFile())
	if err == nil {
		err = json.Unmarshal(b, &written)
	}
	if err != nil || !strings.HasSuffix(written.Cert, "/own.pem") || !strings.HasSuffix(written.Key, "/own.key") {
		t.Errorf("context %+v, %v", written, err)
	}
}
