package ollama_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/ollama"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

var update = flag.Bool("update", false, "rewrite the last section of the golden files")

// TestFromChat has, in each golden file, a chat request and what Ollama is asked for it.
func TestFromChat(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/request/*.txtar")
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
			prose, rest, _ := strings.Cut(string(data), "-- chat --\n")
			chat, want, _ := strings.Cut(rest, "-- ollama --\n")
			if _, err := openai.ParseRequest(schemas.OpChat, []byte(chat), openai.Policy{}); err != nil {
				t.Fatalf("the request is not valid: %v", err)
			}
			got := translate(t, chat)
			if *update {
				if err := os.WriteFile(file, []byte(prose+"-- chat --\n"+chat+"-- ollama --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Ollama is asked (-want +got):\n%s", diff)
			}
		})
	}
}

func translate(t *testing.T, chat string) string {
	t.Helper()
	body, err := ollama.FromChat([]byte(chat), "real", ollama.Policy{KeepAlive: "10m", NumCtx: 8192})
	if err != nil {
		return err.Error() + "\n"
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, body, "", "  "); err != nil {
		t.Fatal(err)
	}
	return pretty.String() + "\n"
}

func TestFromChatRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ members, param string }{
		{`"n":2`, "n"}, {`"audio":{}`, "audio"}, {`"functions":[{}]`, "functions"}, {`"modalities":["text","audio"]`, "modalities"},
		{`"options":{"num_gpu":0}`, "options"}, {`"keep_alive":-1`, "keep_alive"}, {`"parallel_tool_calls":false`, "parallel_tool_calls"},
		{`"tools":[{"type":"custom"}]`, "tools[0].type"}, {`"tool_choice":"required"`, "tool_choice"},
		{`"tool_choice":{"type":"function","function":{"name":"f"}}`, "tool_choice"},
		{`"response_format":{"type":"grammar"}`, "response_format.type"}, {`"response_format":{"type":"json_schema"}`, "response_format.json_schema.schema"},
		{`"messages":[{"role":"function","content":"x"}]`, "messages[0].role"},
		{`"messages":[{"role":"user","content":[{"type":"input_audio"}]}]`, "messages[0].content[0].type"},
		{`"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]`, "messages[0].content[0].image_url.url"},
		{`"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,!"}}]}]`, "messages[0].content[0].image_url.url"},
		{`"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"[1]"}}]}]`, "messages[0].tool_calls[0].function.arguments"},
	} {
		body := `{"model":"m","messages":[{"role":"user","content":"hi"}],` + test.members + "}"
		if strings.Contains(test.members, "messages") {
			body = `{"model":"m",` + test.members + "}"
		}
		_, err := ollama.FromChat([]byte(body), "m", ollama.Policy{})
		if e := schemas.AsError(err); err == nil || e.Code != schemas.CodeUnsupported || e.Param != test.param {
			t.Errorf("%s: error %v, want one about %s", test.members, err, test.param)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "0", "-1", "10m", "1h30m"} {
		if err := (ollama.Policy{KeepAlive: good}).Validate(); err != nil {
			t.Errorf("keep_alive %q: %v", good, err)
		}
	}
	for _, bad := range []ollama.Policy{{KeepAlive: "10"}, {KeepAlive: "-5m"}, {KeepAlive: "ever"}, {NumCtx: -1}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	for keep, want := range map[string]string{"": "", "0": `"keep_alive":0`, "-1": `"keep_alive":-1`, "10m": `"keep_alive":"10m"`} {
		body, err := ollama.FromChat([]byte(`{"messages":[]}`), "m", ollama.Policy{KeepAlive: keep})
		if err != nil || !strings.Contains(string(body), want) || want == "" && strings.Contains(string(body), "keep_alive") {
			t.Errorf("keep_alive %q: %s, %v", keep, body, err)
		}
	}
}

func TestFromEmbedding(t *testing.T) {
	t.Parallel()
	policy := ollama.Policy{KeepAlive: "-1", NumCtx: 512}
	body, err := ollama.FromEmbedding([]byte(`{"model":"m","input":["a","b"],"dimensions":8,"encoding_format":"base64","user":"u"}`), "real", policy)
	if want := `{"model":"real","input":["a","b"],"dimensions":8,"keep_alive":-1,"options":{"num_ctx":512},"truncate":false}`; err != nil || string(body) != want {
		t.Errorf("%s, %v; want %s", body, err, want)
	}
	for _, tokens := range []string{"[1,2]", "[[1,2]]"} {
		_, err := ollama.FromEmbedding([]byte(`{"model":"m","input":`+tokens+`}`), "m", policy)
		if err == nil || schemas.AsError(err).Param != "input" {
			t.Errorf("tokens %s: %v", tokens, err)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	names, err := ollama.DecodeModels([]byte(`{"models":[{"name":"a:latest"},{"name":""},{"name":"b"}]}`))
	if diff := cmp.Diff([]string{"a:latest", "b"}, names); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{`{}`, `[]`, `{"models":{}}`, `<html>`} {
		if _, err := ollama.DecodeModels([]byte(bad)); err == nil {
			t.Errorf("%s passes for a list of models", bad)
		}
		if _, err := ollama.ToEmbeddings([]byte(bad), "m"); err == nil {
			t.Errorf("%s passes for embeddings", bad)
		}
	}
}
