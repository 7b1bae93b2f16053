package ingest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// anyOrigin allows every web page to call, which then needs a key of its own.
const anyOrigin = "*"

// What a browser is told about a call that it may make. A key travels in a header that the page sets, so pages never get
// the browser's own credentials to go with it, and a star covers every header but Authorization.
const (
	corsMethods = "GET, POST, DELETE"
	corsHeaders = "Authorization, *"
	corsExposed = "X-Request-Id, Request-Id, Retry-After, Retry-After-Ms, X-Should-Retry, Location, *"
	corsMaxAge  = "600" // seconds for which a browser remembers an answer
)

// cors lets web pages of other origins call the API, as far as the operator says.
type cors struct {
	origins []string
	any     bool
	open    func() bool // no key exists, so that callers on this machine need none
	// protection refuses what a page of another origin sends to an open door.
	protection *http.CrossOriginProtection
}

func newCORS(origins []string, open func() bool) (*cors, error) {
	c := &cors{open: open, protection: http.NewCrossOriginProtection()}
	for _, origin := range origins {
		if origin == anyOrigin {
			c.any = true
			continue
		}
		if err := CheckOrigin(origin); err != nil {
			return nil, err
		}
		c.origins = append(c.origins, origin)
		if err := c.protection.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("web origin %q: %w", origin, err)
		}
	}
	return c, nil
}

// CheckOrigin reports what is wrong with a web origin of the configuration. It must be written as browsers send it, since
// it is compared with that, or be a star.
func CheckOrigin(origin string) error {
	if origin == anyOrigin {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || origin != u.Scheme+"://"+u.Host ||
		origin != strings.ToLower(origin) || strings.ContainsAny(origin, "*, \t") ||
		u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" || strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("web origin %q is not written as browsers send it: scheme and host in lower case, the port when it is not the scheme's own, and no path, such as https://app.example.com", origin)
	}
	return nil
}

// handler answers the questions of browsers, and marks the answers that a page may read. Nothing changes for anybody else.
func (c *cors) handler(next http.Handler) http.Handler {
	if !c.any && len(c.origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		allowed := c.allowed(r.Header.Values("Origin"))
		if allowed == "" || !strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", allowed)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.Set("Access-Control-Expose-Headers", corsExposed)
		next.ServeHTTP(w, r)
	})
}

// allowed is what the browser of a page is told, or "" when the page may not read the answer. A star never opens a door
// that has no key to ask for: every page that somebody on this machine looks at could use it.
func (c *cors) allowed(origin []string) string {
	if len(origin) != 1 {
		return ""
	}
	if i := slices.Index(c.origins, origin[0]); i >= 0 {
		return c.origins[i]
	}
	if c.any && !c.open() {
		return anyOrigin
	}
	return ""
}
