package natsd

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/certs/certstest"
)

// The lines about TLS that stand in the shipped file as comments work as soon as they are none.
func TestShippedConfWithTLS(t *testing.T) {
	shipped(t, 1, []int{1, 2, 3}, pairs(t)) // sets the environment
	text, err := os.ReadFile(shippedConf)
	if err != nil {
		t.Fatal(err)
	}
	dir, ca := t.TempDir(), certstest.NewAuthority(t)
	for _, name := range []string{"server", "route"} {
		ca.Reissue(certstest.Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}, "127.0.0.1")
	}
	roots := filepath.Join(dir, "ca.pem")
	ca.WriteTo(roots)
	if n := strings.Count(string(text), "# tls {"); n != 2 {
		t.Fatalf("%d lines about TLS, want one for clients and one for routes", n)
	}
	file := filepath.Join(dir, "nats.conf")
	with := strings.NewReplacer("# tls {", "tls {", "/etc/nats/tls", dir).Replace(string(text))
	if err := os.WriteFile(file, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{"clients": opts.TLSConfig, "routes": opts.Cluster.TLSConfig} {
		if config == nil || config.MinVersion != tls.VersionTLS12 {
			t.Errorf("TLS of %s: %+v", name, config)
		}
	}
	if opts.Cluster.TLSConfig.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("routes do not check each other")
	}

	// One node of it takes a client.
	opts.Host, opts.Port, opts.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	opts.Cluster, opts.Routes, opts.StoreDir = server.ClusterOpts{}, nil, filepath.Join(dir, "store")
	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	nc := connect(t, s.ClientURL(), nats.RootCAs(roots), nats.UserInfo("weir", "pipeline"))
	if state, err := nc.TLSConnectionState(); err != nil || state.Version != tls.VersionTLS13 {
		t.Errorf("TLS %x, %v", state.Version, err)
	}
}
