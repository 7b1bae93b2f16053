package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/certs/certstest"
)

// askOver asks the door over TLS and returns the answer and the number of the door's certificate.
func askOver(t *testing.T, p *process, config *tls.Config) (body, serial string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+p.HTTP+"/v1/chat/completions", strings.NewReader(chat("hello", "")))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: config}}
	response, err := client.Do(r)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	if response.ProtoMajor != 2 {
		t.Errorf("the door speaks %s", response.Proto)
	}
	answer, err := io.ReadAll(response.Body)
	return string(answer), response.TLS.PeerCertificates[0].SerialNumber.String(), err
}

// Everything over TLS with certificates of clients required: the door, the embedded server, a stage of its own process
// and the commands; and certificates that are replaced while it runs.
func TestServeWithTLS(t *testing.T) {
	ca, clients := certstest.NewAuthority(t), certstest.NewAuthority(t)
	door, server, own := ca.Issue("127.0.0.1"), ca.Issue("127.0.0.1"), clients.Issue("client")
	dir := t.TempDir()
	client := fmt.Sprintf("client: {ca: %s, cert: %s, key: %s}", ca.File(), own.Cert, own.Key)
	config := writeConfig(t, fmt.Sprintf(`
tls:
  http: {cert: %s, key: %s, client_ca: %s, client_auth: require}
  nats: {cert: %s, key: %s, client_ca: %[3]s, client_auth: require}
  %[6]s
`, door.Cert, door.Key, clients.File(), server.Cert, server.Key, client))
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0", "--config", config)
	if !strings.HasPrefix(serve.NATS, "tls://127.0.0.1:") {
		t.Errorf("NATS is at %s", serve.NATS)
	}
	trusting := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{own.Load(t)}}
	body, serial, err := askOver(t, serve, trusting)
	if err != nil || !strings.Contains(body, "echo: hello") || serial != door.Serial(t) {
		t.Fatalf("answer %s, %v, certificate %s", body, err, serial)
	}
	if _, _, err := askOver(t, serve, &tls.Config{RootCAs: ca.Pool()}); err == nil {
		t.Error("a caller without a certificate was let in")
	}
	for name, args := range map[string][]string{
		"operator": {"--data-dir", dir}, "a stage's way": {"--nats", serve.NATS, "--config", writeConfig(t, "tls:\n  "+client)},
	} {
		if out, _, err := call(t, append([]string{"ask", "x", "--model", "echo"}, args...)...); err != nil || out != "echo: x\n" {
			t.Errorf("ask as %s: %q, %v", name, out, err)
		}
	}
	if _, _, err := call(t, "ask", "x", "--nats", serve.NATS, "--data-dir", t.TempDir()); err == nil {
		t.Error("NATS trusts a client without a certificate, or is trusted without an authority")
	}
	// A stage of its own process, on the same server.
	stage := start(t, nil, "ingest", "--nats", serve.NATS, "--data-dir", t.TempDir(), "--config", config)
	if body, _, err := askOver(t, stage, trusting); err != nil || !strings.Contains(body, "echo: hello") {
		t.Errorf("through a stage: %s, %v", body, err)
	}
	if err := stage.end(t); err != nil {
		t.Error(err)
	}

	ca.Reissue(door, "127.0.0.1")
	for deadline := time.Now().Add(time.Minute); ; {
		_, serial, err := askOver(t, serve, trusting)
		if err != nil {
			t.Fatal(err)
		}
		if serial == door.Serial(t) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the replaced certificate is not used")
		}
	}
	if err := serve.end(t); err != nil {
		t.Error(err)
	}
}

func TestBadCertificatesAreAnErrorOfTheStart(t *testing.T) {
	pair := certstest.NewAuthority(t).Issue("127.0.0.1")
	for name, c := range map[string]struct{ config, want string }{
		"http": {"nats: 127.0.0.1:0\ntls: {http: {cert: none.pem, key: none.pem}}", "tls.http: certificate none.pem"},
		"nats": {"nats: 127.0.0.1:0\ntls: {nats: {cert: none.pem, key: none.pem}}", "TLS for NATS clients: certificate none.pem"},
		"elsewhere": {fmt.Sprintf("nats: tls://127.0.0.1:1\ntls: {nats: {cert: %s, key: %s}}", pair.Cert, pair.Key),
			"tls.nats: it is for the embedded server, and tls://127.0.0.1:1 is another one; remove it"},
		"client": {"nats: tls://127.0.0.1:1\ntls: {client: {ca: none.pem}}", "TLS to NATS: certificate authorities: open none.pem"},
	} {
		_, _, err := call(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--admin", "off", "--config", writeConfig(t, c.config))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
