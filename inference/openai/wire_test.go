package openai_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference/openai"
	dialect "github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

var update = flag.Bool("update", false, "rewrite the client sections of the golden files")

// TestWire has, in each golden file, the bytes that a server sends for a streamed request and the bytes that a caller
// gets for them, for what is known to break one client or another.
func TestWire(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/wire/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			prose, upstream, want := sections(t, string(data))
			got := serve(t, upstream)
			if *update {
				content := prose + "-- upstream --\n" + upstream + "-- client --\n" + got
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("client (-want +got):\n%s", diff)
			}
			openaitest.CheckStream(t, got)
		})
	}
}

func sections(t *testing.T, file string) (prose, upstream, client string) {
	t.Helper()
	prose, rest, ok1 := strings.Cut(file, "-- upstream --\n")
	upstream, client, ok2 := strings.Cut(rest, "-- client --\n")
	if !ok1 || !ok2 {
		t.Fatal("want the sections upstream and client")
	}
	return prose, upstream, client
}

// serve runs one request against a server that sends these bytes, in which \r and a last \ stand for CR and for no line
// end, and writes what comes of it the way the door does.
func serve(t *testing.T, upstream string) string {
	t.Helper()
	body := strings.ReplaceAll(strings.ReplaceAll(upstream, `\r`, "\r"), "\\\n", "")
	b, _ := start(t, openai.Config{}, openaitest.Dials{Body: body})
	var out []byte
	cursor := schemas.Cursor{Request: "req_1"}
	for event, err := range b.Generate(t.Context(), request(streamed)) {
		switch {
		case err != nil:
			return string(dialect.AppendError(out, schemas.AsError(err)))
		case len(event.Data) > 0:
			out = dialect.AppendEvent(out, cursor, event.Data)
			cursor.Index++
		}
	}
	return string(append(out, dialect.Done...))
}
