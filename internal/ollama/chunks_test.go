package ollama_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/ollama"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// FuzzChunks turns two lines into chunks, whatever they are, and holds what is said of each chunk against what it says.
func FuzzChunks(f *testing.F) {
	const first, last = `{"model":"m","message":{"role":"assistant","content":"a","thinking":"b","tool_calls":[{"function":{"name":"f","arguments":{"x":[1, 2]}}}]},"logprobs":[{"token":"a"}],"done":false}`,
		`{"message":{"content":""},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":1e300}`
	f.Add([]byte(first), []byte(last))
	f.Add([]byte(`{"message":{"content":"\ud800","tool_calls":[1,{"function":{"arguments":"{"}}]}}`), []byte(`{"done":true,"done_reason":7}`))
	f.Add([]byte(`{"error":{"message":"x"},"created_at":"0001-01-01T00:00:00Z"}`), []byte(`{"message":[],"done":1}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		chunks := ollama.Chunks{ID: "chatcmpl-1", Model: "m"}
		var event ollama.Event
		for i, data := range [][]byte{openai.ToUTF8(one), openai.ToUTF8(two)} {
			if event.Peek(data) != nil {
				continue
			}
			chunk, says := chunks.Add(&event)
			if i == 0 && len(chunk) == 0 {
				t.Errorf("%s opens no answer", data)
			}
			same(t, chunk, says)
			if event.Done {
				same(t, only(chunks.Usage(&event)), nil)
				same(t, (&ollama.Chunks{ID: "x", Model: "m"}).Response(&event), nil)
			}
		}
	})
}

func only(data []byte, _ *openai.Chunk) []byte { return data }

func same(t *testing.T, data []byte, says *openai.Chunk) {
	t.Helper()
	if len(data) == 0 {
		return
	}
	var chunk openai.Chunk
	if err := chunk.Peek(data); err != nil || !chunk.HasChoices() || chunk.Error != "" || chunk.Model != "m" {
		t.Fatalf("no chunk: %v: %s", err, data)
	}
	if says == nil {
		return
	}
	if diff := cmp.Diff(chunk.Choices, says.Choices, cmpopts.IgnoreUnexported(openai.Choice{})); diff != "" {
		t.Errorf("%s\nsays other than it is said to (-says +said):\n%s", data, diff)
	}
}

// FuzzFromChat has requests that passed the door: what is made of them is JSON.
func FuzzFromChat(f *testing.F) {
	f.Add([]byte(`{"model":"m","messages":[{"role":"assistant","content":[{"type":"text","text":"a"}],"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}}]}],"stop":"x","tools":[{"type":"function"}]}`))
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:;base64,AAAA"}}]}],"temperature":1e400,"think":"\ud800"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{}); err != nil {
			return
		}
		if out, err := ollama.FromChat(body, "m", ollama.Policy{}); err == nil && !gjson.ValidBytes(out) {
			t.Errorf("%s became %s", body, out)
		}
	})
}
