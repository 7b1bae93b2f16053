package bus_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
)

// TestRepeatedErrorsAreLoggedOnce: a connection that is refused tries again five times a second.
func TestRepeatedErrorsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := connect(t, bustest.Server(t), bus.Config{Name: "one", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, err := range []error{nats.ErrAuthorization, nats.ErrAuthorization, nats.ErrAuthorization, nats.ErrPermissionViolation} {
		b.Conn().Opts.AsyncErrorCB(b.Conn(), nil, err)
	}
	if n := strings.Count(log.String(), "NATS reported an error"); n != 2 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

// TestRefusalsNameNoSecret: a token or a password may be in the URL, and an error is printed and logged.
func TestRefusalsNameNoSecret(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"nats://secret@127.0.0.1:1", "secret@127.0.0.1:1", "nats://u:secret@127.0.0.1:1, tls://u:sec@ret@127.0.0.1:2"} {
		_, err := bus.Connect(t.Context(), bus.Config{URL: url})
		if err == nil || strings.Contains(err.Error(), "sec") || !strings.Contains(err.Error(), "nats://127.0.0.1:1") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
