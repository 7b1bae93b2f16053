package bus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/internal/certs/certstest"
	"github.com/weir-llm/weir/internal/natsd"
)

// A stage reaches a server with TLS by its files, and comes back after all of them were replaced.
func TestTLSFilesAreFollowedAcrossReconnects(t *testing.T) {
	t.Parallel()
	ca, clients := certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair, own, roots := ca.Issue("127.0.0.1"), clients.Issue("stage"), ca.File()
	cfg := natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Open: true, TLS: natsd.TLS{
		Cert: pair.Cert, Key: pair.Key, ClientCA: clients.File(), ClientAuth: certs.AuthRequire,
	}}
	server := startTLS(t, cfg)
	plain := func(url string) string { return strings.Replace(url, "tls:", "nats:", 1) }
	proxy := bustest.NewProxy(t, plain(server.ClientURL()))
	to := bus.Config{URL: strings.Replace(proxy.URL(), "nats:", "tls:", 1), CAFile: roots, CertFile: own.Cert, KeyFile: own.Key, Lease: time.Second, StoreBytes: 64 << 20}
	for name, change := range map[string]func(*bus.Config){
		"no certificate of its own": func(c *bus.Config) { c.CertFile, c.KeyFile = "", "" },
		"authorities of the system": func(c *bus.Config) { c.CAFile = "" },
		"half a certificate":        func(c *bus.Config) { c.KeyFile = "" },
		"no file":                   func(c *bus.Config) { c.CAFile = "none.pem" },
	} {
		wrong := to
		change(&wrong)
		if b, err := bus.Connect(t.Context(), wrong); err == nil {
			_ = b.Close()
			t.Errorf("%s: connected", name)
		}
	}
	b, err := bus.Connect(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	server.Close()
	another := certstest.NewAuthority(t)
	another.Reissue(pair, "127.0.0.1")
	another.WriteTo(roots)
	another.Reissue(own, "stage")
	cfg.TLS.ClientCA = another.File()
	proxy.Lead(plain(startTLS(t, cfg).ClientURL()))
	for deadline := time.Now().Add(patience); b.Ready(t.Context()) != nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not connected again: %v", b.Ready(t.Context()))
		}
	}
}

// TLS that is asked for is never given up for a server that has none.
func TestTLSIsNotGivenUp(t *testing.T) {
	t.Parallel()
	server := startTLS(t, natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Open: true})
	if b, err := bus.Connect(t.Context(), bus.Config{URL: server.ClientURL(), CAFile: certstest.NewAuthority(t).File()}); err == nil {
		_ = b.Close()
		t.Error("connected without TLS")
	}
}

func startTLS(t *testing.T, cfg natsd.Config) *natsd.Server {
	t.Helper()
	server, err := natsd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}
