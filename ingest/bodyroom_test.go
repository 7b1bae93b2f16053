package ingest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/weir-llm/weir/ingest"
)

// Large bodies that are on their way take up room until they are stored; what does not fit is refused and takes none.
func TestBodiesFillTheRoom(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	w := setup(t, tokens(1), func(c *ingest.Config) { c.MaxBodies = most })
	large := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q}],"stream":true}`, strings.Repeat("a", most*3/4))

	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	send := func(text string) {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	send(fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(large)))
	send(large[:len(large)-1])
	full := func() bool {
		return w.ask("POST", "/v1/chat/completions", large).status == http.StatusServiceUnavailable
	}
	eventually(t, "the room is full", full)
	if got := w.ask("POST", "/v1/chat/completions", large).wants(t, 503, "server_is_overloaded", "bytes of request bodies"); got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.ask("POST", "/v1/chat/completions", streaming).wants(t, 200) // a small one takes no room

	send(large[len(large)-1:])
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the body that had room: status %d", response.StatusCode)
	}
	for range 3 { // one after the other all fit
		w.ask("POST", "/v1/chat/completions", large).wants(t, 200)
	}
}
