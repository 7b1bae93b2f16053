// Package bustest gives a test its own pipeline: an embedded server with its store in a temporary folder.
package bustest

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/natsd"
)

// Lease of a test's bus, short enough to wait for.
const Lease = 2 * time.Second

// Server starts an embedded server that ends with the test.
func Server(t testing.TB) *natsd.Server {
	t.Helper()
	server, err := natsd.New(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// New connects to a server of its own, with all streams set up.
func New(t testing.TB) *bus.Bus {
	t.Helper()
	return Connect(t, Server(t), bus.Config{})
}

// Connect connects to a server of the test and sets the streams up. Fields that cfg leaves empty are filled.
func Connect(t testing.TB, server *natsd.Server, cfg bus.Config) *bus.Bus {
	t.Helper()
	cfg.InProcess, cfg.Username, cfg.Password = server, server.Username(), server.Password()
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
