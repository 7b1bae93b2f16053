package ingest

import (
	"context"
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
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// serve answers on the listener, with TLS when that is configured.
func (s *Ingest) serve(server *http.Server) error {
	if s.cfg.TLS != nil {
		return server.ServeTLS(s.listener, "", "")
	}
	return server.Serve(s.listener)
}
