package ingest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/weir-llm/weir/ingest"
)

const (
	app  = "https://app.example.com"
	evil = "https://evil.example.com"
)

func withOrigins(origins ...string) func(*ingest.Config) {
	return func(c *ingest.Config) { c.CORSOrigins = origins }
}

// fetch does what a browser does for fetch() in a page of another origin: it asks first when the call is not a simple one,
// sends the call only when it may, and shows the page the answer only when it may see it. blocked says why not.
func (w *bench) fetch(origin, method, path, body string, header ...string) (a answer, blocked string) {
	w.t.Helper()
	header = append([]string{"Origin", origin, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, header...)
	names := []string{}
	for i := 6; i < len(header); i += 2 {
		names = append(names, strings.ToLower(header[i]))
	}
	if method != "GET" || len(names) > 0 {
		ask := append(slices.Clone(header[:6]), "Access-Control-Request-Method", method, "Access-Control-Request-Headers", strings.Join(names, ","))
		leave := w.ask("OPTIONS", path, "", ask...)
		allowed := func(name, value string) bool {
			list := strings.Split(leave.header.Get(name), ", ")
			return slices.Contains(list, value) || slices.Contains(list, "*") && !strings.EqualFold(value, "authorization")
		}
		if leave.status/100 != 2 || !mayRead(leave, origin) || !allowed("Access-Control-Allow-Methods", method) {
			return leave, "preflight"
		}
		for _, name := range names {
			if !allowed("Access-Control-Allow-Headers", name) && !allowed("Access-Control-Allow-Headers", "Authorization") {
				return leave, "header " + name
			}
		}
	}
	if a = w.ask(method, path, body, header...); !mayRead(a, origin) {
		return a, "answer"
	}
	return a, ""
}

func mayRead(a answer, origin string) bool {
	allowed := a.header.Values("Access-Control-Allow-Origin")
	return len(allowed) == 1 && (allowed[0] == "*" || allowed[0] == origin)
}

var asPage = []string{"Authorization", "Bearer secret", "Content-Type", "application/json", "Llm-Priority", "normal"}

func TestCORSAllowsWhoIsNamed(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(2), withKey(t), withOrigins(app, "http://localhost:3000"))
	for _, origin := range []string{app, "http://localhost:3000"} {
		got, blocked := w.fetch(origin, "POST", "/v1/chat/completions", streaming, asPage...)
		if blocked != "" || got.status != 200 || !strings.HasSuffix(got.body, done) {
			t.Fatalf("%s: blocked by %q: %d %s", origin, blocked, got.status, got.body)
		}
		// The page may see the id, comes back by it, and sees errors too.
		if !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "X-Request-Id") || !strings.Contains(strings.Join(got.header.Values("Vary"), ","), "Origin") {
			t.Errorf("headers %v", got.header)
		}
		if got, blocked := w.fetch(origin, "GET", "/v1/streams/"+got.id(), "", asPage[:2]...); blocked != "" || got.status != 200 {
			t.Errorf("resume: blocked by %q: %d", blocked, got.status)
		}
		if got, blocked := w.fetch(origin, "DELETE", "/v1/streams/unknown", "", asPage[:2]...); blocked != "" || got.status != 404 {
			t.Errorf("an error: blocked by %q: %d", blocked, got.status)
		}
		if got, blocked := w.fetch(origin, "POST", "/v1/chat/completions", streaming, "Content-Type", "application/json"); blocked != "" || got.status != 401 {
			t.Errorf("without a key: blocked by %q: %d", blocked, got.status)
		}
	}
}

func TestCORSRefusesEverybodyElse(t *testing.T) {
	t.Parallel()
	named := setup(t, tokens(1), withKey(t), withOrigins(app))
	none := setup(t, tokens(1), withKey(t))
	for _, origin := range []string{evil, "null", "http://app.example.com", app + ":8443", app + ".evil.com", "https://APP.example.com", app + "/", "*", ""} {
		for name, w := range map[string]*bench{"another is named": named, "none is named": none} {
			got := w.ask("OPTIONS", "/v1/chat/completions", "", "Origin", origin, "Access-Control-Request-Method", "POST")
			if got.status != 405 || hasCORS(got) {
				t.Errorf("%s: %q: %d %v", name, origin, got.status, got.header)
			}
			if got := w.chat(streaming, append([]string{"Origin", origin}, asPage...)...); got.status != 200 || hasCORS(got) {
				t.Errorf("%s: %q: %d %v", name, origin, got.status, got.header)
			}
		}
	}
	// A page of the named origin may not see what is no API.
	if got := named.ask("GET", "/readyz", "", "Origin", app); hasCORS(got) {
		t.Errorf("readyz: %v", got.header)
	}
}

// hasCORS reports whether an answer allows a page anything.
func hasCORS(a answer) bool {
	for name := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			return true
		}
	}
	return false
}

// A star is for doors with keys: pages bring their own, and the browser never adds one.
func TestCORSForAll(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), withKey(t), withOrigins("*"))
	got, blocked := w.fetch(evil, "POST", "/v1/chat/completions", streaming, asPage...)
	if blocked != "" || got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("blocked by %q: %d %v", blocked, got.status, got.header)
	}
	leave := w.ask("OPTIONS", "/v1/chat/completions", "", "Origin", evil, "Access-Control-Request-Method", "POST").wants(t, 204)
	if leave.header.Get("Access-Control-Max-Age") != "600" {
		t.Errorf("a browser remembers the answer for %q seconds", leave.header.Get("Access-Control-Max-Age"))
	}
	if got.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Error("a browser may send credentials")
	}
}

// While no key exists, a page gets in only when it is named: not by a star, and not by a name that was rebound.
func TestCORSAtAnOpenDoor(t *testing.T) {
	t.Parallel()
	all := setup(t, tokens(1), withOrigins("*"))
	named := setup(t, tokens(1), withOrigins(app))
	for name, w := range map[string]*bench{"a star": all, "another is named": named} {
		if _, blocked := w.fetch(evil, "POST", "/v1/chat/completions", streaming, "Content-Type", "application/json"); blocked != "preflight" {
			t.Errorf("%s: blocked by %q", name, blocked)
		}
		if _, blocked := w.fetch(evil, "GET", "/v1/models", ""); blocked != "answer" {
			t.Errorf("%s: a plain GET: blocked by %q", name, blocked)
		}
		// A form needs no leave of the door.
		w.ask("POST", "/v1/chat/completions", streaming, "Origin", evil, "Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain").wants(t, 400, "another web origin may not call while no API key exists: name its origin under ingest.cors.origins")
	}
	got, blocked := named.fetch(app, "POST", "/v1/chat/completions", streaming, "Content-Type", "application/json")
	if blocked != "" || got.status != 200 {
		t.Errorf("the named page: blocked by %q: %d %s", blocked, got.status, got.body)
	}
	named.ask("POST", "/v1/chat/completions", streaming, "Origin", app, "Host", "app.example.com").wants(t, 400, "not this machine")
}

func TestCheckOrigin(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"*", app, "http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080"} {
		if err := ingest.CheckOrigin(good); err != nil {
			t.Error(err)
		}
	}
	w := setup(t, nil)
	for _, bad := range []string{
		"", "null", "app.example.com", "https://", "https://App.example.com", "https://app.example.com/", "https://app.example.com:443", "http://a:80",
		"https://*.example.com", "https://a,https://b", "ftp://a", "https://u@a", "https://a?b", "https://a:", "https://a b",
	} {
		if err := ingest.CheckOrigin(bad); err == nil {
			t.Errorf("%q is taken for an origin", bad)
		}
		if _, err := ingest.New(ingest.Config{Bus: w.bus, Addr: "127.0.0.1:0", CORSOrigins: []string{bad}}); err == nil {
			t.Errorf("a door opens with the origin %q", bad)
		}
	}
}
