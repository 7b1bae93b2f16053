// Package bustest gives a test its own pipeline: an embedded server with its store in a temporary folder.
package bustest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// Lease of a test's bus, short enough to wait for.
const Lease = 2 * time.Second

// patience is how long a connection may take to be made, on a machine that is busy with something else too.
const patience = 30 * time.Second

// Server starts an embedded server that ends with the test.
func Server(t testing.TB) *natsd.Server {
	t.Helper()
	server, err := natsd.New(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	server.Admit(admit)
	return server
}

// tenantToken and a name are what a tenant connects with at a test's server.
const tenantToken = "tenant of the test: "

// admit lets in whoever may use a test's server: this machine without credentials, and tenants, confined as an API key
// confines them.
func admit(c keys.Credentials) (keys.Grant, error) {
	tenant, ok := strings.CutPrefix(c.Token, tenantToken)
	switch {
	case ok:
		return keys.Grant{
			Name: tenant, Account: schemas.AccountEdge, Publish: schemas.EdgePublish(tenant), Subscribe: schemas.EdgeSubscribe(tenant),
		}, nil
	case c.Loopback && c.Token == "" && c.Password == "":
		return keys.Grant{Name: "loopback", Account: schemas.AccountPipeline}, nil
	}
	return keys.Grant{}, errors.New("no user is known by these credentials")
}

// Tenant connects as a tenant, in account EDGE with the permissions of one, and no others. The options come last.
func Tenant(t testing.TB, server *natsd.Server, name string, options ...nats.Option) *nats.Conn {
	t.Helper()
	return dial(t, server.ClientURL(), append([]nats.Option{
		nats.Token(tenantToken + name), nats.CustomInboxPrefix(schemas.EdgeInbox(name)), nats.Timeout(patience),
	}, options...)...)
}

// Trusted connects as a trusted service does, in the account of the pipeline.
func Trusted(t testing.TB, server *natsd.Server) *nats.Conn {
	t.Helper()
	return dial(t, server.ClientURL(), nats.UserInfo(server.Username(), server.Password()), nats.Timeout(5*time.Second))
}

func dial(t testing.TB, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// New connects to a server of its own, with all streams set up.
func New(t testing.TB) *bus.Bus {
	t.Helper()
	return Connect(t, Server(t), bus.Config{})
}

// Connect connects to a server of the test and sets the streams up. Fields that cfg leaves empty are filled.
func Connect(t testing.TB, server *natsd.Server, cfg bus.Config) *bus.Bus {
	t.Helper()
	if cfg.URL == "" {
		cfg.InProcess = server
	}
	cfg.Username, cfg.Password = server.Username(), server.Password()
	edge := bus.Credentials{}
	edge.Username, edge.Password = server.EdgeUser()
	cfg.Edge = &edge
	if cfg.Name == "" {
		cfg.Name = "weir-test"
	}
	if cfg.Lease == 0 {
		cfg.Lease = Lease
	}
	if cfg.StoreBytes == 0 {
		cfg.StoreBytes = 256 << 20
	}
	b, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Log(err)
		}
	})
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}
