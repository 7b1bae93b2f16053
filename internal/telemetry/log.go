package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// Keys of log records. Every record about a request carries [KeyRequest] and [KeyTenant]. No record ever carries a
// prompt, an answer or a secret, so there is no key for them.
const (
	KeyRequest   = "request_id"
	KeyTenant    = "tenant"
	KeyModel     = "model"
	KeyCode      = "code"
	KeyError     = "error"
	KeyStage     = "stage"
	KeyWorker    = "worker"
	KeyRouter    = "router"
	KeyPartition = "partition"
	KeySequence  = "sequence"
	KeySubject   = "subject"
	KeyDelivered = "delivered"
	KeyCount     = "count"
	KeyReason    = "reason"
)

// NewLogger writes records from level (debug, info, warn or error) on to w, as text or json.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q: use text or json", format)
}

// Discard is the logger of whoever was given none.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
