package ingest

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
)

// server is not shared by two Runs because a closed http.Server stays closed.
func (s *Ingest) server(work context.Context) *http.Server {
	return &http.Server{
		Handler:           s.handler(),
		TLSConfig:         s.cfg.TLS,
		BaseContext:       func(net.Listener) context.Context { return work },
		ReadHeaderTimeout: s.cfg.HeaderTimeout, // also for a TLS handshake
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    2 * maxHeaderBytes, // checkHead answers first, in words that an SDK shows
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.cfg.MaxStreamsPerConnection,
			WriteByteTimeout:     s.cfg.WriteTimeout, // a deadline of one stream cannot end a connection that takes nothing at all
		},
		ErrorLog: log.New(serverLog{s.log}, "", 0),
	}
}

// serverLog is where net/http reports what no handler can. Handshakes that fail are the business of whoever calls: probes
// and scanners make as many as they like.
type serverLog struct{ log *slog.Logger }

// Write logs one line.
func (l serverLog) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.HasPrefix(line, []byte("http: TLS handshake error")) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

// serveHTTP answers on the listener, with TLS when that is configured.
func (s *Ingest) serveHTTP(server *http.Server) error {
	if s.cfg.TLS != nil {
		return server.ServeTLS(s.listener, "", "")
	}
	return server.Serve(s.listener)
}
