package natsd

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog is the server's log on slog. What the server calls a notice says at every start how it is configured, so
// that it is only for debugging here. A fatal error does not end the process: it is kept for New to return.
type serverLog struct {
	logger *slog.Logger

	mu    sync.Mutex
	cause error
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) Noticef(format string, v ...any) { l.logger.Debug(line(format, v)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.logger.Warn(line(format, v)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.logger.Error(line(format, v)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.logger.Debug(line(format, v)) }

// Tracef drops the line: a trace holds payloads, and no prompt is ever logged.
func (l *serverLog) Tracef(string, ...any) {}

// Fatalf keeps the first cause.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	if l.cause == nil {
		l.cause = fmt.Errorf(format, v...)
	}
	l.mu.Unlock()
	l.logger.Error(line(format, v))
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

func line(format string, v []any) string { return "nats-server: " + fmt.Sprintf(format, v...) }
