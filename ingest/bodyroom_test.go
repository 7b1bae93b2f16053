package ingest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-llm/weir/ingest"
)

// Large bodies take up room until they are stored; what does not fit is refused, and takes none.
func TestBodiesFillTheRoom(t *testing.T) {
	t.Parallel()
	const size = 768 << 10
	large := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q}],"stream":true}`, strings.Repeat("a", size))
	for name, tt := range map[string]struct {
		room int64
		fits bool
	}{
		"room for one":   {int64(len(large)) - 64<<10, true}, // the first 64 KiB are free
		"a byte too few": {int64(len(large)) - 64<<10 - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, tokens(1), func(c *ingest.Config) { c.MaxBodies = tt.room })
			for range 3 { // one after the other
				if tt.fits {
					w.ask("POST", "/v1/chat/completions", large).wants(t, 200)
				} else if got := w.ask("POST", "/v1/chat/completions", large).wants(t, 503, "server_is_overloaded", "bytes of request bodies"); got.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				w.ask("POST", "/v1/chat/completions", streaming).wants(t, 200) // a small one takes no room
			}
		})
	}
}
