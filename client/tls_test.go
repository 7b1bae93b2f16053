package client_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/certs/certstest"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func TestTLSOverHTTP(t *testing.T) {
	t.Parallel()
	authority := certstest.NewAuthority(t)
	own := authority.Issue("client")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) }))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{authority.Issue("127.0.0.1").Load(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	files := client.Config{CAFile: authority.File(), CertFile: own.Cert, KeyFile: own.Key}
	c, ctx := way{"http", server.URL, files}.connect(t, server.URL)
	if _, err := c.Complete(ctx, words(`"x":1`)); err != nil {
		t.Error(err)
	}
	for name, cfg := range map[string]client.Config{
		"no certificate":    {CAFile: files.CAFile, ReconnectFor: 50 * time.Millisecond},
		"an unknown server": {ReconnectFor: 50 * time.Millisecond},
	} {
		c, ctx := way{"http", server.URL, cfg}.connect(t, server.URL)
		if _, err := c.Complete(ctx, words(`"x":1`)); code(err) != schemas.CodeUnavailable || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	files.URL = server.URL
	files.HTTPClient = server.Client()
	if _, err := client.Connect(t.Context(), files); err == nil || !strings.Contains(err.Error(), "HTTPClient") {
		t.Errorf("files and an HTTP client: %v", err)
	}
	if _, err := client.Connect(t.Context(), client.Config{URL: server.URL, CertFile: own.Cert}); err == nil || !strings.Contains(err.Error(), "both cert and key") {
		t.Errorf("half a certificate: %v", err)
	}
}

// An answer in one piece is read to the largest that a worker takes.
func TestTheLargestAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := openai.MaxEmbeddingBytes
		if strings.Contains(r.Header.Get(schemas.HeaderRequestID), "larger") {
			size++
		}
		fmt.Fprint(w, `"`+strings.Repeat("x", size-2)+`"`)
	}))
	t.Cleanup(server.Close)
	c, ctx := way{"http", server.URL, client.Config{}}.connect(t, server.URL)
	request := words(`"x":1`)
	if answer, err := c.Complete(ctx, request); err != nil || len(answer.Data) != openai.MaxEmbeddingBytes {
		t.Errorf("%d bytes, %v", len(answer.Data), err)
	}
	request.ID = "larger"
	if _, err := c.Complete(ctx, request); code(err) != schemas.CodeUnsupported {
		t.Errorf("one byte more: %v", err)
	}
}
