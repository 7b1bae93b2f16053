package natsd

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-llm/weir/internal/bus"
)

// TestSetupSaysWhatItWants: who reads that JetStream has no room learns how much is wanted, and what can be done.
func TestSetupSaysWhatItWants(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server is not ready")
	}
	refuses(t, bus.Config{URL: s.ClientURL()}, "insufficient storage", "reserve 8 GiB in all", "raise max_file_store")
	refuses(t, bus.Config{URL: s.ClientURL(), Replicas: 3, StoreBytes: 64 << 20}, "has no room for 3 replicas", "set replicas: 1")
}

// refuses checks that the streams cannot be set up, and what the error says.
func refuses(t *testing.T, cfg bus.Config, says ...string) {
	t.Helper()
	cfg.Name = "test"
	b, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	err = b.Setup(t.Context())
	for _, want := range says {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q in it", err, want)
		}
	}
}
