package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// checkTLS runs clients against a server of its own whose doors speak TLS.
func checkTLS(ctx context.Context, r *report, weir, nats, node, dir string) (err error) {
	dir = filepath.Join(dir, "tls")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cert, key, config := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "weir.yaml")
	roots, err := selfSigned(cert, key)
	if err != nil {
		return err
	}
	both := fmt.Sprintf("{cert: %q, key: %q}", cert, key)
	if err := os.WriteFile(config, []byte("tls: {http: "+both+", nats: "+both+"}\n"), 0o600); err != nil {
		return err
	}
	s, err := startServerWith(ctx, roots, weir, dir, "--config", config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r.check(ctx, "TLS: curl streams over HTTP/2", func(ctx context.Context) error { return curlHTTP2(ctx, s, cert) })
	r.check(ctx, "TLS: openai-go streams", func(ctx context.Context) error {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		return goTLS(ctx, openai.NewClient(option.WithBaseURL(s.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0),
			option.WithHTTPClient(&http.Client{Transport: transport})))
	})
	r.check(ctx, "TLS: the nats CLI with the operator's context", func(ctx context.Context) error {
		stdout, err := output(exec.CommandContext(ctx, nats, "--context", filepath.Join(s.data, "nats", "context", "weir.json"), "stream", "ls", "--names"))
		if err == nil && !strings.Contains(string(stdout), "LLM_REPLIES") {
			err = fmt.Errorf("the streams are %s", stdout)
		}
		return err
	})
	r.check(ctx, "TLS: the nats CLI does not trust an authority that it does not know", func(ctx context.Context) error {
		if _, err := (natsCLI{program: nats, server: s}).run(ctx, "account", "info"); err == nil || !strings.Contains(err.Error(), "certificate") {
			return fmt.Errorf("it said %w", err)
		}
		return nil
	})
	checkNode(ctx, r, "env", "NODE_EXTRA_CA_CERTS="+cert, node, "openai.mjs", "openai-6", s.http+"/v1")
	return nil
}

func goTLS(ctx context.Context, client openai.Client) error {
	whole, err := goUnary(ctx, client)
	if err != nil {
		return err
	}
	return goStream(ctx, client, whole)
}

func curlHTTP2(ctx context.Context, s *server, cert string) error {
	stdout, err := output(exec.CommandContext(ctx, "curl", "--http2", "--cacert", cert, "-sSN", "-w", "HTTP/%{http_version}", s.http+"/v1/chat/completions",
		"-H", "Content-Type: application/json", "-d", `{"model":"echo","messages":[{"role":"user","content":"hello"}],"stream":true}`))
	switch {
	case err != nil:
		return err
	case !bytes.Contains(stdout, []byte("data: [DONE]")) || !bytes.HasSuffix(stdout, []byte("HTTP/2")):
		return fmt.Errorf("it printed %s", stdout)
	}
	return nil
}

// checkLimits is what an SDK makes of a request that is too large in one way or another.
func checkLimits(ctx context.Context, r *report, s *server) {
	client := openai.NewClient(option.WithBaseURL(s.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	many := question("echo", prompt)
	for len(many.Messages) <= 2048 {
		many.Messages = append(many.Messages, openai.UserMessage("x"))
	}
	for _, c := range []struct {
		name, code, param string
		status            int
		params            openai.ChatCompletionNewParams
		option            option.RequestOption
	}{
		{"too long a header is 431", "request_too_large", "", http.StatusRequestHeaderFieldsTooLarge, question("echo", prompt), option.WithHeader("X-Long", strings.Repeat("x", 33<<10))},
		{"a compressed body is 415", "unsupported", "", http.StatusUnsupportedMediaType, question("echo", prompt), option.WithHeader("Content-Encoding", "gzip")},
		{"too many messages are 400", "invalid_value", "messages", http.StatusBadRequest, many, option.WithHeader("X-Short", "x")},
	} {
		r.check(ctx, "openai-go: "+c.name, func(ctx context.Context) error {
			_, err := client.Chat.Completions.New(ctx, c.params, c.option)
			return wantAPIError(err, c.status, c.code, c.param)
		})
	}
}

// selfSigned writes a certificate for loopback addresses and its key, and returns the pool that trusts it.
func selfSigned(cert, key string) (*x509.CertPool, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir conformance"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(public)
	return roots, errors.Join(os.WriteFile(cert, public, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}
