package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// chatMock is a model server that speaks chat completions, as most do. It calls the first tool that it is offered, repeats
// what a tool has said, keeps to a schema, and otherwise thinks aloud before it answers.
type chatMock struct {
	url    string
	server *http.Server
}

func startChatMock() (*chatMock, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &chatMock{url: "http://" + listener.Addr().String() + "/v1", server: &http.Server{Handler: http.HandlerFunc(answerChat)}}
	go func() { _ = m.server.Serve(listener) }() // it ends with Close
	return m, nil
}

func (m *chatMock) Close() error { return m.server.Close() }

// chatRequest is what the mock reads of a request.
type chatRequest struct {
	Stream   bool
	Messages []struct {
		Role    string
		Content json.RawMessage
	}
	Tools []struct {
		Function struct{ Name string }
	}
	ResponseFormat *struct {
		Type       string
		JSONSchema struct{ Name string } `json:"json_schema"`
	} `json:"response_format"`
}

func answerChat(w http.ResponseWriter, r *http.Request) {
	var request chatRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || !request.Stream || len(request.Messages) == 0 {
		http.Error(w, `{"error":{"message":"want a streamed chat","type":"invalid_request_error","code":"invalid_value"}}`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, delta := range deltas(&request) {
		fmt.Fprintf(w, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"mock\",\"choices\":[%s]}\n\n", delta)
	}
	fmt.Fprint(w, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"mock\",\"choices\":[],"+
		"\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12,\"completion_tokens_details\":{\"reasoning_tokens\":2}}}\n\ndata: [DONE]\n\n")
}

func deltas(r *chatRequest) []string {
	last := r.Messages[len(r.Messages)-1]
	switch {
	case last.Role == "tool":
		var said string
		_ = json.Unmarshal(last.Content, &said) // what is no string is repeated as nothing
		return texts("The tool said: ", said)
	case len(r.Tools) > 0:
		return []string{
			choice(fmt.Sprintf(`{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":%q,"arguments":""}}]}`, r.Tools[0].Function.Name), "null"),
			choice(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`, "null"),
			choice(`{"tool_calls":[{"index":0,"function":{"arguments":"\"Paris\"}"}}]}`, "null"),
			choice(`{}`, `"tool_calls"`),
		}
	case r.ResponseFormat != nil && r.ResponseFormat.JSONSchema.Name == "weather":
		return texts(`{"city":"Paris",`, `"degrees":21}`)
	}
	return append([]string{choice(`{"role":"assistant","reasoning_content":"Let me think. "}`, "null"), choice(`{"reasoning_content":"Yes."}`, "null")},
		texts("After some ", "thought.")...)
}

func texts(parts ...string) (list []string) {
	for _, part := range parts {
		quoted, _ := json.Marshal(map[string]string{"content": part})
		list = append(list, choice(string(quoted), "null"))
	}
	return append(list, choice(`{}`, `"stop"`))
}

func choice(delta, finish string) string {
	return strings.Join([]string{`{"index":0,"delta":`, delta, `,"finish_reason":`, finish, `}`}, "")
}
