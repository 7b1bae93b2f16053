package ingest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
)

// raw is a connection that sends what it is told to.
type raw struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// dial connects from an address of this machine.
func (w *bench) dial(from string) *raw {
	w.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: longEnough}
	conn, err := dialer.DialContext(w.t.Context(), "tcp", w.door.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(longEnough)); err != nil {
		w.t.Fatal(err)
	}
	return &raw{Conn: conn, t: w.t, r: bufio.NewReader(conn)}
}

func (c *raw) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) response() *http.Response {
	c.t.Helper()
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

// ask sends a request and reads its answer.
func (c *raw) ask(request string) answer {
	c.t.Helper()
	c.send(request)
	return read(c.response())
}

func post(body string, header ...string) string {
	lines := append([]string{"POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", fmt.Sprintf("Content-Length: %d", len(body))}, header...)
	return strings.Join(append(lines, "", body), "\r\n")
}

// closed fails the test unless the server closes the connection without a word.
func (c *raw) closed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("read %q, %v, want the end", b, err)
	}
}

const models = "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

func TestHeadLimits(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	head := func(size int) string {
		const rest = "Host: 127.0.0.1\r\nX: \r\n"
		return "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + strings.Repeat("x", size-len(rest)) + "\r\n\r\n"
	}
	number := func(n int) string {
		return "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Repeat("X: \r\n", n-1) + "\r\n"
	}
	url := func(size int) string {
		return "GET /v1/models?" + strings.Repeat("x", size-len("/v1/models?")) + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	}
	for name, c := range map[string]struct {
		request string
		status  int
		want    string
	}{
		"header size":           {head(32 << 10), 200, ""},
		"header size, beyond":   {head(32<<10 + 1), 431, "32769 bytes: at most 32768"},
		"headers":               {number(128), 200, ""},
		"headers, beyond":       {number(129), 431, "129 headers: at most 128"},
		"length of URL":         {url(8 << 10), 200, ""},
		"length of URL, beyond": {url(8<<10 + 1), 414, "8193 bytes: at most 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			got := w.dial("127.0.0.1").ask(c.request).wants(t, c.status, c.want)
			if c.status != 200 {
				got.wants(t, c.status, `"code":"request_too_large"`, `"type":"invalid_request_error"`)
			}
		})
	}
	// Far beyond, net/http answers before there is a request.
	conn := w.dial("127.0.0.1")
	go func() { _, _ = io.WriteString(conn, head(100<<10)) }() // it is not read to its end
	read(conn.response()).wants(t, 431)
}

func TestBodySize(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), func(c *ingest.Config) { c.MaxBodyBytes = int64(len(streaming)) })
	w.chat(streaming).wants(t, 200, done)
	w.chat(streaming+" ").wants(t, 413, "request_too_large", fmt.Sprint(len(streaming)))
}

func TestCompressedBodyIsRefused(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1))
	w.chat(streaming, "Content-Encoding", "identity").wants(t, 200)
	for _, encoding := range []string{"gzip", "zstd", "br", "deflate", "identity, gzip"} {
		w.chat(streaming, "Content-Encoding", encoding).wants(t, 415, `"code":"unsupported"`, "uncompressed")
	}
	w.dial("127.0.0.1").ask(post(streaming, "Content-Encoding: identity", "Content-Encoding: gzip")).wants(t, 415)
}

func TestSlowHeaderIsGivenUp(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.HeaderTimeout = time.Second })
	slow := w.dial("127.0.0.1")
	slow.send(models[:40])
	slow.closed()
	w.dial("127.0.0.1").ask(models).wants(t, 200)
}

func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.IdleTimeout = 100 * time.Millisecond })
	idle := w.dial("127.0.0.1")
	idle.ask(models).wants(t, 200)
	idle.closed()
}

func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.MaxConnectionsPerAddress = 2 })
	one, two := w.dial("127.0.0.2"), w.dial("127.0.0.2")
	one.ask(models).wants(t, 200)
	two.ask(models).wants(t, 200)
	w.dial("127.0.0.2").closed()
	w.dial("127.0.0.3").ask(models).wants(t, 200)
	_ = one.Close()
	eventually(t, "room for another", func() bool {
		conn := w.dial("127.0.0.2")
		defer conn.Close()
		conn.send(models)
		response, err := http.ReadResponse(conn.r, nil)
		return err == nil && read(response).status == 200
	})
	two.ask(models).wants(t, 200)
}

// hold opens a stream from an address and returns the function that ends it.
func (w *bench) hold(from string, header ...string) (status int, leave func()) {
	w.t.Helper()
	conn := w.dial(from)
	conn.send(post(streaming, header...))
	response := conn.response()
	return response.StatusCode, func() { _ = conn.Close() }
}

// fills takes n places and wants that one more is refused, that others are let in, and that there is room after one left.
func (w *bench) fills(n int, take, other func() (int, func()), refused func() answer, status int, code string) {
	w.t.Helper()
	var first func()
	for i := range n {
		got, leave := take()
		if got != 200 {
			w.t.Fatalf("place %d of %d: status %d", i+1, n, got)
		}
		first = leave
	}
	a := refused().wants(w.t, status, code, "try again in 1s")
	if a.header.Get("Retry-After") != "1" || a.header.Get("Retry-After-Ms") != "1000" {
		w.t.Errorf("headers %v", a.header)
	}
	if got, leave := other(); got != 200 {
		w.t.Errorf("somebody else: status %d", got)
	} else {
		leave()
	}
	first()
	eventually(w.t, "room for another", func() bool { got, leave := take(); leave(); return got == 200 })
}

func TestStreamsPerAddress(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, func(c *ingest.Config) { c.MaxStreamsPerAddress = 3 })
	take := func() (int, func()) { return w.hold("127.0.0.2") }
	w.fills(3, take, func() (int, func()) { return w.hold("127.0.0.3") },
		func() answer { return w.dial("127.0.0.2").ask(post(streaming)) }, 429, `"code":"rate_limit_exceeded"`)
}

func TestStreamsPerKey(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, withKey(t), func(c *ingest.Config) { c.MaxStreamsPerKey = 3 })
	addresses := 1
	with := func(secret string) (from, header string) {
		addresses++ // a key has its places wherever it is used
		return fmt.Sprintf("127.0.0.%d", addresses), "Authorization: Bearer " + secret
	}
	hold := func(secret string) (int, func()) { from, header := with(secret); return w.hold(from, header) }
	w.fills(3, func() (int, func()) { return hold("secret") }, func() (int, func()) { return hold("rotated") },
		func() answer { from, header := with("secret"); return w.dial(from).ask(post(streaming, header)) }, 429, `"code":"rate_limit_exceeded"`)
}

// Behind a trusted proxy the address is the one that it tells, and what a caller says itself counts for nothing.
func TestStreamsBehindProxies(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, func(c *ingest.Config) {
		c.MaxStreamsPerAddress, c.MaxConnectionsPerAddress = 2, 2
		c.TrustedProxies = networks(t, "127.0.0.2/32")
	})
	take := func() (int, func()) { return w.hold("127.0.0.2", "X-Forwarded-For: 192.0.2.9, 198.51.100.1") }
	w.fills(2, take, func() (int, func()) { return w.hold("127.0.0.2", "X-Forwarded-For: 198.51.100.2") },
		func() answer { return w.dial("127.0.0.2").ask(post(streaming, "X-Forwarded-For: 198.51.100.1")) }, 429, `"code":"rate_limit_exceeded"`)
	for range 2 {
		if got, _ := w.hold("127.0.0.3", "X-Forwarded-For: 192.0.2.1"); got != 200 {
			t.Fatalf("status %d", got)
		}
	}
	w.dial("127.0.0.3").closed() // it is no proxy, so that its connections are bounded
}

// A caller that sends its body too slowly holds neither its place nor its connection longer than a body may take, whether
// the body is wanted or not.
func TestSlowBodiesHoldNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), withKey(t), func(c *ingest.Config) { c.BodyTimeout, c.MaxStreams = 100*time.Millisecond, 1 })
	const key = "Authorization: Bearer secret"
	for name, c := range map[string]struct {
		request string
		status  int
		want    string
	}{
		"wanted":     {post(streaming, key), 400, "too slowly"},
		"refused":    {post(streaming), 401, "invalid_api_key"},
		"compressed": {post(streaming, key, "Content-Encoding: gzip"), 415, "uncompressed"},
		"nowhere":    {strings.Replace(post(streaming), "POST /v1", "POST /v2", 1), 404, "not_found"},
		"health":     {strings.Replace(post(streaming), "POST /v1/chat/completions", "GET /livez", 1), 200, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			slow := w.dial("127.0.0.1")
			slow.ask(strings.TrimSuffix(c.request, "}")).wants(t, c.status, c.want)
			slow.closed()
		})
	}
	eventually(t, "the place", func() bool { return w.chat(streaming, "Authorization", "Bearer secret").status == 200 })
}

// A refusal is told in the dialect of the surface that was called.
func TestLimitsInTheDialectOfTheCaller(t *testing.T) {
	t.Parallel()
	w := setup(t, hang, func(c *ingest.Config) { c.MaxStreamsPerAddress = 1 })
	const anthropic = `{"type":"error","error":{"type":"`
	body := `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"stream":true}`
	ask := func(header ...string) answer {
		return w.ask("POST", "/v1/messages", body, append([]string{"anthropic-version", "2023-06-01"}, header...)...)
	}
	ask("X-Long", strings.Repeat("x", 33<<10)).wants(t, 431, anthropic+"request_too_large")
	ask("Content-Encoding", "gzip").wants(t, 415, anthropic+"invalid_request_error")
	if got, _ := w.hold("127.0.0.1"); got != 200 {
		t.Fatalf("status %d", got)
	}
	if got := ask().wants(t, 429, anthropic+"rate_limit_error"); got.header.Get("Retry-After") != "1" {
		t.Errorf("headers %v", got.header)
	}
}
