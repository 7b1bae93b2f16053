package ollama_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

var update = flag.Bool("update", false, "rewrite the client sections of the golden files")

// TestWire has, in each golden file, the lines that a server sends and the bytes that a caller gets for them. A file whose
// name begins with unary has one document instead.
func TestWire(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/wire/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			prose, rest, _ := strings.Cut(string(data), "-- upstream --\n")
			upstream, want, _ := strings.Cut(rest, "-- client --\n")
			streamed := !strings.HasPrefix(name, "unary")
			got := converse(t, upstream, streamed)
			if *update {
				if err := os.WriteFile(file, []byte(prose+"-- upstream --\n"+upstream+"-- client --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("client (-want +got):\n%s", diff)
			}
			if streamed {
				openaitest.CheckStream(t, got)
			}
		})
	}
}

func question(streamed bool, members string) *inference.GenerateRequest {
	body := `{"model":"m","messages":[{"role":"user","content":"hi"}]` + members
	if streamed {
		body += `,"stream":true,"stream_options":{"include_usage":true}`
	}
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: schemas.OpChat, Body: []byte(body + "}"), Stream: streamed, Attempt: 1, Try: 1,
	}
}

// converse runs a request against a server that sends these bytes, in which a last \ stands for no line end, and writes
// what comes of it the way the door does.
func converse(t *testing.T, upstream string, streamed bool) string {
	t.Helper()
	_, url := serve(t, func(openaitest.Request) openaitest.Dials {
		return openaitest.Dials{Body: strings.ReplaceAll(upstream, "\\\n", "")}
	})
	var out []byte
	cursor := schemas.Cursor{Request: "req_1"}
	for event, err := range backend(t, ollama.Config{URL: url, Model: "real"}).Generate(t.Context(), question(streamed, "")) {
		switch {
		case err != nil && streamed:
			return string(openai.AppendError(out, schemas.AsError(err)))
		case err != nil:
			return string(schemas.AsError(err).Encode()) + "\n"
		case !streamed:
			return string(event.Data) + "\n"
		case len(event.Data) > 0:
			out = openai.AppendEvent(out, cursor, event.Data)
			cursor.Index++
		}
	}
	return string(append(out, openai.Done...))
}
