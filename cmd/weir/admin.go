package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/telemetry"
)

const (
	readyWithin  = 2 * time.Second
	adminTimeout = 5 * time.Second
)

// admin is the operator's door: one mux on its own address.
type admin struct {
	listener net.Listener
	server   *http.Server
	served   chan error
}

// startAdmin listens and serves until close. ready reports why the process could not take work now.
func startAdmin(address string, registry *prometheus.Registry, ready func(context.Context) error, log *slog.Logger) (*admin, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the operator: %w; choose another address with --admin, or off", err)
	}
	a := &admin{listener: listener, served: make(chan error, 1), server: &http.Server{
		Handler:           adminMux(registry, ready),
		ReadHeaderTimeout: adminTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	go func() { a.served <- a.server.Serve(listener) }() // close waits for it
	return a, nil
}

func adminMux(registry *prometheus.Registry, ready func(context.Context) error) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
		defer cancel()
		if err := ready(ctx); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", telemetry.MetricsHandler(registry))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (a *admin) address() string { return a.listener.Addr().String() }

func (a *admin) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("close the admin address: %w", err), a.server.Close())
	}
	if served := <-a.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
