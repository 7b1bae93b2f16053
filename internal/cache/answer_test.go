package cache_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

var spent = &schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5}

func chat(message, finish string) string {
	return fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":%s,"finish_reason":%q}],"usage":{"total_tokens":5}}`, message, finish)
}

func events(lines ...string) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, line := range lines {
			if !yield(uint64(i), []byte(line)) {
				return
			}
		}
	}
}

func TestAWholeAnswerIsKept(t *testing.T) {
	t.Parallel()
	said := &cache.Said{Op: schemas.OpChat, Response: []byte(chat(`{"role":"assistant","content":"hi"}`, "stop")), Finishes: []string{"stop"}, Usage: spent}
	answer, reason := cache.Keep(said)
	if reason != "" || gjson.GetBytes(answer, "choices.0.message.content").Str != "hi" || gjson.GetBytes(answer, "id").Exists() || gjson.GetBytes(answer, "created").Exists() {
		t.Errorf("%s: %s", reason, answer)
	}
	said.Response, said.Events = nil, events(
		`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"h"}}]}`,
		`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}`)
	if answer, reason = cache.Keep(said); reason != "" || gjson.GetBytes(answer, "choices.0.message.content").Str != "hi" {
		t.Errorf("of a stream: %s: %s", reason, answer)
	}
}

// TestWhatIsNotWholeIsNotKept goes through every way in which an answer can be less than, or other than, one plain text.
func TestWhatIsNotWholeIsNotKept(t *testing.T) {
	t.Parallel()
	text := `{"role":"assistant","content":"hi"}`
	for name, c := range map[string]struct {
		said cache.Said
		want cache.Reason
	}{
		"cut at a limit":     {cache.Said{Response: []byte(chat(text, "length")), Finishes: []string{"length"}, Usage: spent}, cache.ReasonFinish},
		"filtered":           {cache.Said{Response: []byte(chat(text, "content_filter")), Finishes: []string{"content_filter"}, Usage: spent}, cache.ReasonFinish},
		"calls of tools":     {cache.Said{Response: []byte(chat(text, "tool_calls")), Finishes: []string{"tool_calls"}, Usage: spent}, cache.ReasonFinish},
		"no finish reason":   {cache.Said{Response: []byte(chat(text, "stop")), Usage: spent}, cache.ReasonFinish},
		"two answers":        {cache.Said{Response: []byte(chat(text, "stop")), Finishes: []string{"stop", "stop"}, Usage: spent}, cache.ReasonFinish},
		"the response says":  {cache.Said{Response: []byte(chat(text, "length")), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonFinish},
		"tools all the same": {cache.Said{Response: []byte(chat(`{"content":"hi","tool_calls":[{"id":"a"}]}`, "stop")), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonFinish},
		"a refusal":          {cache.Said{Response: []byte(chat(`{"content":"hi","refusal":"no"}`, "stop")), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonFinish},
		"no text":            {cache.Said{Response: []byte(chat(`{"role":"assistant","content":""}`, "stop")), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonShape},
		"no JSON":            {cache.Said{Response: []byte(`{"choices"`), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonShape},
		"no choice":          {cache.Said{Response: []byte(`{"choices":[]}`), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonShape},
		"no usage":           {cache.Said{Response: []byte(chat(text, "stop")), Finishes: []string{"stop"}}, cache.ReasonUsage},
		"a negative usage":   {cache.Said{Response: []byte(chat(text, "stop")), Finishes: []string{"stop"}, Usage: &schemas.Usage{PromptTokens: -1, TotalTokens: 1}}, cache.ReasonUsage},
		"too large": {cache.Said{Response: []byte(chat(`{"content":"`+strings.Repeat("x", schemas.MaxCacheEntryBytes)+`"}`, "stop")),
			Finishes: []string{"stop"}, Usage: spent}, cache.ReasonSize},
		"a message cut":     {cache.Said{Op: schemas.OpMessages, Response: []byte(`{"content":[{"type":"text","text":"hi"}],"stop_reason":"max_tokens"}`), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonFinish},
		"a message's tools": {cache.Said{Op: schemas.OpMessages, Response: []byte(`{"content":[{"type":"tool_use","id":"a"}],"stop_reason":"end_turn"}`), Finishes: []string{"stop"}, Usage: spent}, cache.ReasonShape},
		"with citations": {cache.Said{Op: schemas.OpMessages, Response: []byte(`{"content":[{"type":"text","text":"hi","citations":[{}]}],"stop_reason":"end_turn"}`),
			Finishes: []string{"stop"}, Usage: spent}, cache.ReasonShape},
		"vectors of nothing": {cache.Said{Op: schemas.OpEmbedding, Response: []byte(`{"data":[]}`), Usage: spent}, cache.ReasonShape},
	} {
		if c.said.Op == "" {
			c.said.Op = schemas.OpChat
		}
		if answer, reason := cache.Keep(&c.said); reason != c.want || answer != nil && reason != "" {
			t.Errorf("%s: reason %q, want %q (%.80s)", name, reason, c.want, answer)
		}
	}
}

// TestAReplayIsWholeHoweverItIsCut compares the text of every form of a replay with what was kept, at runes of every length.
func TestAReplayIsWholeHoweverItIsCut(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"hi", "äöü€😀 " + strings.Repeat("word \\ \" \n ", 30), strings.Repeat("😀", 20*512+7)} {
		content := `{"role":"assistant","content":` + string(quoted(text)) + `}`
		answer, reason := cache.Keep(&cache.Said{Op: schemas.OpChat, Response: []byte(chat(content, "stop")), Finishes: []string{"stop"}, Usage: spent})
		if reason != "" {
			t.Fatal(reason)
		}
		e := entry("acme", "_.k", string(answer))
		data, count, err := (&cache.Replay{Request: "req_1", Stream: true, IncludeUsage: true}).Events(e)
		if err != nil || count > 512+4 || count != strings.Count(string(data), "\n")+1 {
			t.Fatalf("%d events, %v", count, err)
		}
		var got strings.Builder
		for line := range strings.SplitSeq(string(data), "\n") {
			if !gjson.Valid(line) {
				t.Fatalf("not JSON: %s", line)
			}
			got.WriteString(gjson.Get(line, "choices.0.delta.content").Str)
		}
		if got.String() != text {
			t.Errorf("a stream says %.60q, want %.60q", got.String(), text)
		}
		whole, count, err := (&cache.Replay{Request: "req_1"}).Events(e)
		if err != nil || count != 1 || gjson.GetBytes(whole, "choices.0.message.content").Str != text || gjson.GetBytes(whole, "id").Str != "chatcmpl-1" {
			t.Errorf("%d events, %v: %.200s", count, err, whole)
		}
	}
}

func quoted(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always marshals
	}
	return b
}
