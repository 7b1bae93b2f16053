package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// signature is what the fake signs its thoughts with; it must come back in the next turn as it was.
const signature = "RXFnSUNrWUlDUkFDR0FJcVFM+/=="

// upstreamKey is what the fake wants as x-api-key.
const upstreamKey = "upstream-key"

// newAnthropicFake starts a server that speaks both dialects. What it answers is for the last word of the request's last
// text to say: text, tools, think, overloaded, broken or cut. Whatever of a request only an Anthropic server knows must
// have reached it, or it refuses the request.
func newAnthropicFake() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", fakeMessages)
	mux.HandleFunc("POST /v1/messages/count_tokens", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, `{"input_tokens":42}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", fakeChat)
	return httptest.NewServer(mux)
}

type fakeRequest struct {
	Stream   bool
	Messages []struct{ Content json.RawMessage }
	body     string
}

// scenario is the last word of the last text.
func (r fakeRequest) scenario() string {
	content := string(r.Messages[len(r.Messages)-1].Content)
	for _, word := range []string{"tools", "think", "overloaded", "broken", "cut", "refused"} {
		if strings.Contains(content, "SAY "+word) {
			return word
		}
	}
	return "text"
}

func readFake(w http.ResponseWriter, r *http.Request) (request fakeRequest, ok bool) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil || len(request.Messages) == 0 {
		writeJSON(w, http.StatusBadRequest, `{"type":"error","error":{"type":"invalid_request_error","message":"the fake cannot read this"}}`)
		return request, false
	}
	request.body = string(body)
	return request, true
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func fakeMessages(w http.ResponseWriter, r *http.Request) {
	request, ok := readFake(w, r)
	if !ok {
		return
	}
	version, refused := r.Header.Get("anthropic-version"), ""
	switch {
	case r.Header.Get("x-api-key") != upstreamKey:
		refused = "the operator's key did not come"
	case version != "2023-06-01" && version != "2026-10-21":
		refused = "version " + version
	case strings.Contains(request.body, "SAY think") && (!strings.Contains(request.body, `"cache_control":{`) || r.Header.Get("anthropic-beta") != "conformance-2026-01-01"):
		refused = "cache_control or anthropic-beta was lost"
	case strings.Contains(request.body, "TURN 2") && !strings.Contains(request.body, signature):
		refused = "the signature was lost"
	}
	blocks, stop := `{"type":"text","text":"You said it"}`, "end_turn"
	events := textEvents(0, "You ", "said ", "it")
	switch request.scenario() {
	case "tools":
		blocks, stop = blocks+`,{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Zürich"}}`, "tool_use"
		events = append(events, toolEvents(1, `{"ci`, `ty":"Zürich"}`)...)
	case "think":
		blocks = fmt.Sprintf(`{"type":"thinking","thinking":"Hm, hm","signature":%q},`, signature) + blocks
		events = append(thinkingEvents(0, "Hm", ", hm"), textEvents(1, "You ", "said ", "it")...)
	case "overloaded":
		w.Header().Set("Retry-After", "3")
		writeJSON(w, 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_up"}`)
		return
	case "refused":
		refused = "SAY no"
	}
	if refused != "" {
		writeJSON(w, http.StatusBadRequest, fmt.Sprintf(`{"type":"error","error":{"type":"invalid_request_error","message":%q}}`, refused))
		return
	}
	const head = `"id":"msg_1","type":"message","role":"assistant","model":"claude"`
	if !request.Stream {
		writeJSON(w, http.StatusOK, fmt.Sprintf(`{%s,"content":[%s],"stop_reason":%q,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":5}}`, head, blocks, stop))
		return
	}
	all := append([]string{`{"type":"message_start","message":{` + head + `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}`, `{"type":"ping"}`}, events...)
	all = append(all, fmt.Sprintf(`{"type":"message_delta","delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":5}}`, stop), `{"type":"message_stop"}`)
	switch request.scenario() {
	case "broken":
		all = append(all[:4:4], `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`)
	case "cut":
		all = all[:4]
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range all {
		var e struct{ Type string }
		_ = json.Unmarshal([]byte(event), &e) // it is written above
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Type, event)
	}
}

func block(index int, start string, deltas ...string) []string {
	events := []string{fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, start)}
	for _, delta := range deltas {
		events = append(events, fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":%s}`, index, delta))
	}
	return append(events, fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, index))
}

func textEvents(index int, pieces ...string) []string {
	var deltas []string
	for _, piece := range pieces {
		deltas = append(deltas, fmt.Sprintf(`{"type":"text_delta","text":%q}`, piece))
	}
	return block(index, `{"type":"text","text":""}`, deltas...)
}

func thinkingEvents(index int, pieces ...string) []string {
	var deltas []string
	for _, piece := range pieces {
		deltas = append(deltas, fmt.Sprintf(`{"type":"thinking_delta","thinking":%q}`, piece))
	}
	return block(index, `{"type":"thinking","thinking":"","signature":""}`, append(deltas, fmt.Sprintf(`{"type":"signature_delta","signature":%q}`, signature))...)
}

func toolEvents(index int, pieces ...string) []string {
	var deltas []string
	for _, piece := range pieces {
		deltas = append(deltas, fmt.Sprintf(`{"type":"input_json_delta","partial_json":%q}`, piece))
	}
	return block(index, `{"type":"tool_use","id":"toolu_1","name":"weather","input":{}}`, deltas...)
}

// fakeChat answers the same in the other dialect.
func fakeChat(w http.ResponseWriter, r *http.Request) {
	request, ok := readFake(w, r)
	if !ok {
		return
	}
	const head = `"id":"chatcmpl-1","created":1764000000,"model":"gpt"`
	const usage = `"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}`
	deltas, calls, finish := []string{`"role":"assistant","content":""`, `"content":"You "`, `"content":"said "`, `"content":"it"`}, "", "stop"
	switch request.scenario() {
	case "tools":
		finish = "tool_calls"
		calls = `,"tool_calls":[{"id":"toolu_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Zürich\"}"}}]`
		deltas = append(deltas, `"tool_calls":[{"index":0,"id":"toolu_1","type":"function","function":{"name":"weather","arguments":""}}]`,
			`"tool_calls":[{"index":0,"function":{"arguments":"{\"ci"}}]`, `"tool_calls":[{"index":0,"function":{"arguments":"ty\":\"Zürich\"}"}}]`)
	case "overloaded":
		w.Header().Set("Retry-After", "3")
		writeJSON(w, http.StatusServiceUnavailable, `{"error":{"message":"overloaded","type":"server_error","code":"server_is_overloaded"}}`)
		return
	case "refused":
		writeJSON(w, http.StatusBadRequest, `{"error":{"message":"SAY no","type":"invalid_request_error"}}`)
		return
	}
	if !request.Stream {
		writeJSON(w, http.StatusOK, fmt.Sprintf(`{%s,"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"You said it"%s},"finish_reason":%q}],%s}`, head, calls, finish, usage))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	chunk := func(choices, more string) {
		fmt.Fprintf(w, "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[%s]%s}\n\n", head, choices, more)
	}
	for i, delta := range deltas {
		switch scenario := request.scenario(); {
		case i == 2 && scenario == "broken":
			fmt.Fprint(w, "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"overloaded_error\"}}\n\n")
			return
		case i == 2 && scenario == "cut":
			return
		}
		chunk(`{"index":0,"delta":{`+delta+`},"finish_reason":null}`, "")
	}
	chunk(fmt.Sprintf(`{"index":0,"delta":{},"finish_reason":%q}`, finish), "")
	chunk("", ","+usage)
	fmt.Fprint(w, "data: [DONE]\n\n")
}
