package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestProfilesAreForThisMachine(t *testing.T) {
	t.Parallel()
	mux := adminMux(prometheus.NewRegistry(), nil)
	for from, want := range map[string]int{
		"127.0.0.1:4000": http.StatusOK, "[::1]:4000": http.StatusOK, "[::ffff:127.0.0.1]:4000": http.StatusOK,
		"10.0.0.9:4000": http.StatusForbidden, "[fe80::1]:4000": http.StatusForbidden, "": http.StatusForbidden,
	} {
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		if mux.ServeHTTP(w, r); w.Code != want {
			t.Errorf("from %q: status %d, want %d", from, w.Code, want)
		}
	}
}
