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
	"net/netip"
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
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, fromHere(handler))
	}
	return mux
}

// fromHere serves this machine alone: a profile shows what is in memory and costs a core, and nobody asks for a key here.
func fromHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "profiles are served to this machine alone: ask over a tunnel, such as ssh -L 8081:127.0.0.1:8081", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
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
