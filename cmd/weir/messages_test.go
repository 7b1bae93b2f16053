package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// nativeConfig has the model m on an Anthropic server, called once.
func nativeConfig(url, timeouts string) string {
	return fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: anthropic, url: %q, api_key: sk-up}]\n    retry: {max_tries: 1}\n    timeouts: %s\n", url, timeouts)
}

func serveModel(t *testing.T, config string) *process {
	t.Helper()
	return start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--config", writeConfig(t, config))
}

// reply is an answer read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func (p *process) messages(ctx context.Context, t *testing.T, path, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := caller().Do(r)
	if err != nil {
		return reply{}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(data)}
}

// events of a stream: their data, and that each has its name.
func (r reply) events(t *testing.T) (events []string) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSuffix(r.body, "\n\n"), "\n\n") {
		var name, data string
		for line := range strings.SplitSeq(block, "\n") {
			if v, ok := strings.CutPrefix(line, "event: "); ok {
				name = v
			}
			if v, ok := strings.CutPrefix(line, "data: "); ok {
				data = v
			}
		}
		var e struct{ Type string }
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Type != name || name == "" {
			t.Fatalf("event %q has the data %s", name, data)
		}
		events = append(events, data)
	}
	return events
}

const question = `{"model":"m","max_tokens":99,"stream":true,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"thinking":{"type":"enabled","budget_tokens":1024},"tools":[{"name":"f","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral","ttl":"1h"}}],"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}},{"type":"text","text":"hi"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"c2ln"},{"type":"tool_use","id":"t0","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t0","content":"r"}]}],"later":{"a" : [1 ,2]}}`

// TestMessagesRelayed sends a request with everything that only Anthropic servers know through every stage, and back.
func TestMessagesRelayed(t *testing.T) {
	t.Parallel()
	all := anthropictest.Whole("tool_use", anthropictest.Thinking(0, "RXJhc2VkIGJ5IG5vYm9keQ==", "Let", " me"), anthropictest.Text(1, "I will", " call"),
		anthropictest.Tool(2, "t1", "f", "", `{"a"`, `:1}`), []string{`{"index":3,"content_block":{"type":"later","x":null},"type":"content_block_start"}`, `{"type":"content_block_stop","index":3}`})
	upstream := anthropictest.New(t, anthropictest.Dials{Events: all, Pings: true})
	serve := serveModel(t, nativeConfig(upstream.URL, patient))
	got := serve.messages(t.Context(), t, "/v1/messages?beta=true", question, "anthropic-version", "2023-06-01", "anthropic-beta", "x-2025-01-01,y", "x-api-key", "caller")
	if diff := cmp.Diff(all, got.events(t)); got.status != 200 || diff != "" {
		t.Errorf("status %d, events (-server +caller):\n%s", got.status, diff)
	}
	asked := upstream.Requests()[0]
	if asked.Body != question {
		t.Errorf("the server got another body:\n%s", cmp.Diff(question, asked.Body))
	}
	for name, want := range map[string]string{"X-Api-Key": "sk-up", "Anthropic-Version": "2023-06-01", "Anthropic-Beta": "x-2025-01-01,y", "Authorization": ""} {
		if v := asked.Header.Get(name); v != want {
			t.Errorf("the server got %s %q, want %q", name, v, want)
		}
	}
	id := got.header.Get("request-id")
	again := serve.get(t, "/v1/streams/"+id+"?starting_after=4")
	var marked bool
	if again.body, marked = strings.CutSuffix(again.body, "event: done\ndata: [DONE]\n\n"); !marked {
		t.Errorf("a stream that is read by cursor lacks its end mark: %s", again.body)
	}
	if diff := cmp.Diff(all[5:], again.events(t)); diff != "" {
		t.Errorf("resumed (-server +caller):\n%s", diff)
	}
	out, _, err := call(t, "replay", id, "--nats", serve.NATS)
	if err != nil || !strings.Contains(out, "I will") {
		t.Errorf("replay shows %q, %v", out, err)
	}
	whole := serve.messages(t.Context(), t, "/v1/messages", strings.Replace(question, `"stream":true,`, "", 1))
	if whole.status != 200 || whole.body != anthropictest.Message("Hello world") {
		t.Errorf("unary: %d %s", whole.status, whole.body)
	}
	count := serve.messages(t.Context(), t, "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	if count.status != 200 || count.body != `{"input_tokens":42}` {
		t.Errorf("count: %d %s", count.status, count.body)
	}
}

func (p *process) get(t *testing.T, path string) reply {
	t.Helper()
	status, body := get(t, "http://"+p.HTTP+path)
	return reply{status: status, body: body}
}

// TestMessagesFromFailingServers reads what a caller of the surface gets for each way that an Anthropic server fails.
func TestMessagesFromFailingServers(t *testing.T) {
	t.Parallel()
	overloaded := `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_up"}`
	whole := anthropictest.Answer("Hel", "lo")
	for name, test := range map[string]struct {
		dials  anthropictest.Dials
		status int
		events int
		kind   string
	}{
		"529":                   {anthropictest.Dials{Status: 529, Body: overloaded, Header: map[string]string{"Retry-After": "7"}}, 529, 0, "overloaded_error"},
		"429":                   {anthropictest.Dials{Status: 429, Body: `{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}`}, 429, 0, "rate_limit_error"},
		"refused request":       {anthropictest.Dials{Status: 400, Body: `{"type":"error","error":{"type":"invalid_request_error","message":"messages.0: odd"}}`}, 400, 0, "invalid_request_error"},
		"the operator's key":    {anthropictest.Dials{Status: 401, Body: `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`}, 500, 0, "api_error"},
		"error before anything": {anthropictest.Dials{Events: []string{overloaded}}, 529, 0, "overloaded_error"},
		"error in the stream":   {anthropictest.Dials{Events: append(append([]string{}, whole[:3]...), overloaded)}, 200, 3, "overloaded_error"},
		"cut":                   {anthropictest.Dials{Cut: 4}, 200, 4, "api_error"},
		"cut before the reason": {anthropictest.Dials{Events: whole, Cut: len(whole) - 2}, 200, len(whole) - 2, "api_error"}, // only message_stop is known without it
		"broken":                {anthropictest.Dials{Reset: 3}, 200, 3, "api_error"},
		"silence":               {anthropictest.Dials{Hold: 3}, 200, 3, "timeout_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeouts := patient
			if test.dials.Hold > 0 {
				timeouts = hasty
			}
			serve := serveModel(t, nativeConfig(anthropictest.New(t, test.dials).URL, timeouts))
			got := serve.messages(t.Context(), t, "/v1/messages", question)
			last := got.body
			if got.status == 200 {
				events := got.events(t)
				if len(events) != test.events+1 {
					t.Fatalf("%d events:\n%s", len(events), got.body)
				}
				last = events[test.events]
			}
			var e struct {
				Type  string
				Error struct{ Type, Message string }
			}
			if err := json.Unmarshal([]byte(last), &e); err != nil || got.status != test.status || e.Type != "error" || e.Error.Type != test.kind {
				t.Errorf("status %d, ends in %s; want %d and %s", got.status, last, test.status, test.kind)
			}
			if name == "529" && got.header.Get("Retry-After") != "7" {
				t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
			}
		})
	}
}

// TestMessagesCancelReachesTheServer: a caller that cancels stops the model.
func TestMessagesCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	upstream := anthropictest.New(t, anthropictest.Dials{Hold: 3})
	config := nativeConfig(upstream.URL, patient) + "ingest: {disconnect_grace: 100ms}\n"
	serve := serveModel(t, config)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan reply, 1)
	go func() { left <- serve.messages(ctx, t, "/v1/messages", question) }()
	becomes(t, "the call of the server", func() bool { return len(upstream.Requests()) > 0 })
	leave()
	<-left
	select {
	case <-upstream.Gone():
	case <-time.After(time.Minute):
		t.Error("the server is still being listened to")
	}
}

// TestMessagesTranslated asks in one dialect what a server answers in the other, in both directions.
func TestMessagesTranslated(t *testing.T) {
	t.Parallel()
	tool := func(delta string) string { return openaitest.Chunk(`"delta":{` + delta + `},"finish_reason":null`) }
	upstream := openaitest.New(t, openaitest.Dials{Events: []string{
		tool(`"role":"assistant","content":""`), tool(`"reasoning_content":"hm"`), tool(`"content":"I call"`),
		tool(`"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]`), tool(`"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]`),
		openaitest.Chunk(`"delta":{},"finish_reason":"tool_calls"`), openaitest.Usage,
	}}, openaitest.Dials{})
	native := anthropictest.New(t)
	serve := serveModel(t, upstreamConfig(upstream.URL, patient)+strings.Replace(strings.TrimPrefix(nativeConfig(native.URL, patient), "models:\n"), "  m:", "  claude:", 1))
	got := serve.messages(t.Context(), t, "/v1/messages", question)
	var seen []string
	for _, event := range got.events(t) {
		var e struct {
			Type  string
			Block struct{ Type, Name string } `json:"content_block"`
			Delta struct {
				Text, Thinking string
				Input          string `json:"partial_json"`
				Stop           string `json:"stop_reason"`
			}
			Usage struct {
				Input  int `json:"input_tokens"`
				Output int `json:"output_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(event), &e); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, strings.TrimSpace(fmt.Sprint(e.Type, " ", e.Block.Type, e.Block.Name, e.Delta.Text, e.Delta.Thinking, e.Delta.Input, e.Delta.Stop)))
		if e.Type == "message_delta" && (e.Usage.Input != 3 || e.Usage.Output != 2) {
			t.Errorf("usage %+v", e.Usage)
		}
	}
	want := []string{"message_start", "content_block_start thinking", "content_block_delta hm", "content_block_stop", "content_block_start text",
		"content_block_delta I call", "content_block_stop", "content_block_start tool_usef", `content_block_delta {"a":1}`, "content_block_stop", "message_delta tool_use", "message_stop"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var asked struct {
		Messages []struct{ Role string }
		Tools    []struct{ Function struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(upstream.Requests()[0].Body), &asked); err != nil || len(asked.Messages) != 4 || asked.Messages[3].Role != "tool" || asked.Tools[0].Function.Name != "f" {
		t.Errorf("the server got %s", upstream.Requests()[0].Body)
	}
	whole := serve.messages(t.Context(), t, "/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`)
	if !strings.Contains(whole.body, `"content":[{"type":"text","text":"Hello world"}],"stop_reason":"end_turn"`) {
		t.Errorf("unary: %d %s", whole.status, whole.body)
	}
	if count := serve.messages(t.Context(), t, "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`); !strings.Contains(count.body, `{"input_tokens":`) {
		t.Errorf("count: %d %s", count.status, count.body)
	}
	// The other way round: a chat request on an Anthropic server.
	events := readStream(t, serve.post(t, `{"model":"claude","stream":true,"messages":[{"role":"user","content":"hi"}]}`).Body)
	if got := text(t, events); got != "Hello world" || events[len(events)-1] != "[DONE]" {
		t.Errorf("chat: %q of %q", got, events)
	}
}
