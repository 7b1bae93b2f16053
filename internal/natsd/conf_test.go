package natsd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/schemas"
)

const shippedConf = "../../nats.conf"

// shipped parses nats.conf as node n<i> of a cluster whose routes listen on the ports.
func shipped(t *testing.T, i int, routes []int, issuer callout.Pairs) *server.Options {
	t.Helper()
	t.Setenv("WEIR_NATS_NAME", fmt.Sprintf("n%d", i))
	t.Setenv("WEIR_NATS_PASSWORD", "pipeline")
	t.Setenv("WEIR_NATS_EDGE_PASSWORD", "tenants")
	t.Setenv("WEIR_NATS_SYS_PASSWORD", `"0-begins-with-a-digit"`)
	t.Setenv("WEIR_NATS_ROUTE_PASSWORD", "between")
	t.Setenv("WEIR_NATS_AUTH_PASSWORD", "callout")
	t.Setenv("WEIR_NATS_CALLOUT_ISSUER", issuer.Issuer)
	t.Setenv("WEIR_NATS_CALLOUT_XKEY", issuer.XKey)
	for n, port := range routes {
		t.Setenv(fmt.Sprintf("WEIR_NATS_ROUTE_%d", n+1), fmt.Sprintf(`"nats://route:between@127.0.0.1:%d"`, port))
	}
	opts, err := server.ProcessConfigFile(shippedConf)
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

func TestShippedConf(t *testing.T) {
	issuer := pairs(t)
	opts := shipped(t, 1, []int{1, 2, 3}, issuer)
	if !opts.SyncAlways {
		t.Error("sync_interval is not always")
	}
	if opts.ServerName != "n1" || opts.SystemAccount != schemas.AccountSystem || opts.HTTPHost != "127.0.0.1" {
		t.Errorf("name %q, system account %q, monitoring on %q", opts.ServerName, opts.SystemAccount, opts.HTTPHost)
	}
	if len(opts.Routes) != 3 || opts.Routes[2].Host != "127.0.0.1:3" {
		t.Errorf("routes are %v, want the three of the environment", opts.Routes)
	}
	got := map[string]string{}
	for _, u := range opts.Users {
		got[u.Username] = u.Account.Name
	}
	wantUsers := map[string]string{
		"weir": schemas.AccountPipeline, "edge": schemas.AccountEdge, "sys": schemas.AccountSystem, "auth": schemas.AccountAuth,
	}
	if diff := cmp.Diff(wantUsers, got); diff != "" {
		t.Errorf("users and their accounts (-want +got):\n%s", diff)
	}
	want := &server.AuthCallout{
		Issuer: issuer.Issuer, XKey: issuer.XKey, Account: schemas.AccountAuth,
		AuthUsers: []string{"weir", "edge", "sys", "auth"}, AllowedAccounts: []string{schemas.AccountEdge},
	}
	if diff := cmp.Diff(want, opts.AuthCallout); diff != "" {
		t.Errorf("auth callout (-want +got):\n%s", diff)
	}
}

func pairs(t *testing.T) callout.Pairs {
	t.Helper()
	p, err := callout.NewPairs()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The embedded server and the shipped configuration must offer tenants the same.
func TestShippedConfHasTheAccountsOfTheEmbeddedServer(t *testing.T) {
	shipped(t, 1, []int{1, 2, 3}, pairs(t)) // sets the environment
	file, err := conf.ParseFile(shippedConf)
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := conf.Parse(accounts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(shares(embedded), shares(file)); diff != "" {
		t.Errorf("accounts of the embedded server and of nats.conf differ (-embedded +nats.conf):\n%s", diff)
	}
}

// shares keeps, for the pipeline's account and that of tenants, what it exports and imports.
func shares(config map[string]any) map[string]any {
	out := map[string]any{"system": config["system_account"]}
	for name, v := range config["accounts"].(map[string]any) {
		if name != schemas.AccountPipeline && name != schemas.AccountEdge {
			continue // the callout is for a cluster alone
		}
		account := v.(map[string]any)
		out[name] = map[string]any{"exports": account["exports"], "imports": account["imports"]}
	}
	return out
}

// Three nodes started from the shipped file form a cluster that takes a replicated stream.
func TestShippedConfRunsAsACluster(t *testing.T) {
	nodes := cluster(t, pairs(t))
	nc := connect(t, nodes[0].ClientURL(), nats.UserInfo("weir", "pipeline"))
	createWhenReady(t, streams(t, nc))
}

// cluster starts three nodes from the shipped file.
func cluster(t *testing.T, issuer callout.Pairs) (nodes []*server.Server) {
	t.Helper()
	routes := freePorts(t, 3)
	for i := range 3 {
		opts := shipped(t, i+1, routes, issuer)
		opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
		opts.HTTPPort = 0
		opts.Cluster.Host, opts.Cluster.Port = "127.0.0.1", routes[i]
		opts.StoreDir = filepath.Join(t.TempDir(), "store")
		opts.NoSigs, opts.NoLog = true, true
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		nodes = append(nodes, s)
	}
	for _, s := range nodes {
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("a node is not ready")
		}
	}
	return nodes
}

// createWhenReady repeats until the cluster has elected a leader, which does not answer before, and knows its peers.
func createWhenReady(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := js.CreateStream(try, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no replicated stream: %v", err)
		}
	}
	if _, err := js.Publish(ctx, "s", []byte("x")); err != nil {
		t.Fatal(err)
	}
}

// freePorts are free, and not of those that a system gives to whoever asks for any port: a node listens only a moment later.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for tries := 0; len(ports) < n; tries++ {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && tries < 1000 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // when all are found, so that none is found twice
		ports = append(ports, port)
	}
	slices.Sort(ports)
	return ports
}
