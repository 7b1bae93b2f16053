package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/certs/certstest"
	"github.com/weir-llm/weir/schemas"
)

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t, Config{MaxInFlight: 4})
	for range 5 {
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if _, err := fetch(t.Context(), c, "/ok"); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	}
	if n := s.met(); n > 8 { // four, and a few that were dialled while another came free
		t.Errorf("20 calls, 4 at once, made %d connections", n)
	}
	if len(s.requests()) != 20 {
		t.Errorf("the server saw %d calls", len(s.requests()))
	}
}

// secured starts the server with TLS, and with HTTP/2 if told so.
func secured(pair certstest.Pair, t testing.TB, h2 bool) func(*httptest.Server) {
	return func(s *httptest.Server) {
		s.EnableHTTP2 = h2
		s.TLS = nil
		s.StartTLS()
		s.TLS.Certificates[0] = pair.Load(t)
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	authority := certstest.NewAuthority(t)
	pair, ca := authority.Issue("127.0.0.1"), authority.File()
	unencrypted := func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	for name, c := range map[string]struct {
		start      func(*httptest.Server)
		connection Connection
		major      int
	}{
		"agreed on with TLS":          {secured(pair, t, true), Connection{CA: ca}, 2},
		"a server without it":         {secured(pair, t, false), Connection{CA: ca}, 1},
		"without TLS, as configured":  {unencrypted, Connection{H2C: true}, 2},
		"without TLS, not configured": {func(s *httptest.Server) { s.Start() }, Connection{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, c.start)
			client := s.client(t, Config{Connection: c.connection})
			for range 3 {
				if _, err := get(t, client); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.requests()[0].ProtoMajor; got != c.major {
				t.Errorf("HTTP/%d, want HTTP/%d", got, c.major)
			}
			if n := s.met(); n != 1 {
				t.Errorf("3 calls made %d connections", n)
			}
		})
	}
}

// TestStreamsDoNotStallEachOther leaves one stream of an HTTP/2 connection unread, whose server sends far more than its
// window, while others on the same connection go on.
func TestStreamsDoNotStallEachOther(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	})
	lump := strings.Repeat("x", streamWindow)
	s.mux.HandleFunc("GET /flood", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, lump); err != nil {
				return
			}
		}
	})
	c := s.client(t, Config{Connection: Connection{H2C: true}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 20 {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/flood", nil)
		reply, err := c.transport.RoundTrip(request) // and nobody reads it
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
	}
	within(t, "a call beside streams that nobody reads", func() {
		for range 50 {
			if _, err := fetch(t.Context(), c, "/ok"); err != nil {
				t.Error(err)
			}
		}
	})
	if n := s.met(); n != 1 {
		t.Errorf("%d connections, so that it proves nothing", n)
	}
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	authority, other := certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair := authority.Issue("127.0.0.1")
	elsewhere := authority.Issue("example.com")
	for name, c := range map[string]struct {
		pair certstest.Pair
		ca   string
		ok   bool
	}{
		"the one named":            {pair, authority.File(), true},
		"another":                  {pair, other.File(), false},
		"those of the system":      {pair, "", false},
		"a certificate of another": {elsewhere, authority.File(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, secured(c.pair, t, true))
			_, err := get(t, s.client(t, Config{Connection: Connection{CA: c.ca}}))
			switch {
			case c.ok && err != nil:
				t.Error(err)
			case !c.ok && (err == nil || !strings.Contains(err.Message, "TLS failed")):
				t.Errorf("got %v, want TLS failed", err)
			}
		})
	}
}

// proxy is an HTTP proxy that notes who asked it for what.
func proxy(t *testing.T) (address string, asked func() []*http.Request) {
	var mu sync.Mutex
	var seen []*http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r)
		mu.Unlock()
		if r.Header.Get("Proxy-Authorization") == "" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			forward(w, r)
			return
		}
		out, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return append([]*http.Request(nil), seen...)
	}
}

func forward(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.Header.Del("Proxy-Authorization")
	reply, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer reply.Body.Close()
	w.WriteHeader(reply.StatusCode)
	_, _ = io.Copy(w, reply.Body)
}

func TestProxy(t *testing.T) {
	t.Parallel()
	authority := certstest.NewAuthority(t)
	pair, ca := authority.Issue("127.0.0.1"), authority.File()
	t.Run("of a plain server", func(t *testing.T) {
		address, asked := proxy(t)
		s := newServer(t)
		body, err := get(t, s.client(t, Config{Connection: Connection{Proxy: inference.Secret("http://me:pass@" + address)}}))
		if err != nil || body != `{"ok":true}` {
			t.Fatal(body, err)
		}
		if got := asked(); len(got) != 1 || got[0].URL.String() != s.URL+"/ok" {
			t.Errorf("the proxy was asked for %v", got)
		}
	})
	t.Run("of a server with TLS", func(t *testing.T) {
		address, asked := proxy(t)
		s := newServer(t, secured(pair, t, true))
		body, err := get(t, s.client(t, Config{Connection: Connection{CA: ca, Proxy: inference.Secret("http://me:pass@" + address)}}))
		if err != nil || body != `{"ok":true}` {
			t.Fatal(body, err)
		}
		if got := asked(); len(got) != 1 || got[0].Method != http.MethodConnect {
			t.Errorf("the proxy was asked for %v", got)
		}
		if got := s.requests()[0]; got.ProtoMajor != 2 || got.Header.Get("Proxy-Authorization") != "" {
			t.Errorf("the server was called with HTTP/%d and %v", got.ProtoMajor, got.Header)
		}
	})
	t.Run("that refuses", func(t *testing.T) {
		address, _ := proxy(t)
		s := newServer(t, secured(pair, t, true))
		_, err := get(t, s.client(t, Config{Connection: Connection{CA: ca, Proxy: inference.Secret("http://" + address)}}))
		if err == nil || err.Code != schemas.CodeUpstreamError || len(s.requests()) != 0 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("at an address that is not allowed", func(t *testing.T) {
		address, asked := proxy(t)
		s := newServer(t)
		_, err := get(t, s.client(t, Config{Connection: Connection{
			Proxy: inference.Secret("http://me:pass@" + address), Addresses: Addresses{NoPrivate: true},
		}}))
		if err == nil || !strings.Contains(err.Message, "does not allow") || len(asked()) != 0 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of the environment is not asked", func(t *testing.T) {
		if c := newServer(t).client(t, Config{}); c.transport.Proxy != nil {
			t.Error("the transport asks for a proxy that the operator did not name")
		}
	})
}

func TestRefusedConnections(t *testing.T) {
	for name, c := range map[string]struct {
		url        string
		connection Connection
		want       string
	}{
		"ca without TLS":      {"http://h", Connection{CA: "ca.pem"}, "write the url with https"},
		"missing ca":          {"https://h", Connection{CA: "no-such-file.pem"}, "no-such-file.pem"},
		"h2c with TLS":        {"https://h", Connection{H2C: true}, "remove h2c"},
		"h2c through a proxy": {"http://h", Connection{H2C: true, Proxy: "http://p:1"}, "socks5"},
		"proxy without host":  {"http://h", Connection{Proxy: "socks5://"}, "write it like"},
		"unknown proxy":       {"http://h", Connection{Proxy: "ftp://me:secret@p:1"}, "write it like"},
		"unreadable proxy":    {"http://h", Connection{Proxy: "http://me:secret@p:x1"}, "write it like"},
	} {
		_, err := NewClient(Config{Name: "b", URL: c.url, Connection: c.connection})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds the password: %v", name, err)
		}
	}
}
