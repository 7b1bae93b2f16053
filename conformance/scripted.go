package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// heartbeat of the server in front of the scripted models, and how long its slow model is silent between two tokens.
const (
	heartbeat = 200 * time.Millisecond
	slowPace  = 500 * time.Millisecond
)

// retryAfter is what a refusal asks for. It is longer than the first pause of OpenAI's SDKs.
const retryAfter = time.Second

// scripted is a server whose models are played by a mock, each with an answer of its own.
type scripted struct {
	*server
	upstream *openaitest.Upstream

	mu    sync.Mutex
	tried map[string]int // requests to a model that refuses the first, by model and prompt
}

// scriptedModels are the models of the mock: what they answer is in answer.
func scriptedModels() []string {
	return append(suiteModels(), "plain", "tools", "structured", "slow", "cut", "refused", "limited", "busy", "org/slashed")
}

func startScripted(ctx context.Context, program, dir string) (*scripted, error) {
	s := &scripted{tried: make(map[string]int)}
	s.upstream = openaitest.Serve(s.answer)
	var config strings.Builder
	fmt.Fprintf(&config, "ingest: {heartbeat: %v}\nmodels:\n  echo: {backends: [{name: echo, protocol: echo}]}\n", heartbeat)
	for _, model := range scriptedModels() {
		// One try: what a client makes of a refusal is the question here.
		fmt.Fprintf(&config, "  %s: {backends: [{name: mock, protocol: openai, url: %q}], retry: {max_tries: 1}}\n", model, s.upstream.URL)
	}
	file := filepath.Join(dir, "scripted.yaml")
	err := os.WriteFile(file, []byte(config.String()), 0o600)
	if err == nil {
		s.server, err = startServer(ctx, program, filepath.Join(dir, "scripted"), "--config", file)
	}
	if err != nil {
		s.upstream.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the server and the mock.
func (s *scripted) Close() error {
	defer s.upstream.Close()
	return s.server.Close()
}

// answer plays the model that a request names.
func (s *scripted) answer(r openaitest.Request) openaitest.Dials {
	switch model := gjson.Get(r.Body, "model").Str; model {
	case "tools":
		return toolAnswer(r.Body)
	case "structured":
		if gjson.Get(r.Body, "response_format.json_schema.schema.properties.degrees.type").Str != "integer" {
			return openaitest.Dials{Status: 400, Body: `{"error":{"message":"the schema is not here","type":"invalid_request_error"}}`}
		}
		return said(r.Body, `{"city":"Bern",`, `"degrees":7}`)
	case "slow":
		d := said(r.Body, "one", " two", " three")
		d.Pace = slowPace
		return d
	case "cut":
		events := append(openaitest.Answer("one", " two")[:3], `{"error":{"message":"CUDA out of memory","type":"server_error","code":null}}`)
		return openaitest.Dials{Events: events}
	case "refused":
		return openaitest.Dials{Status: 400, Body: `{"error":{"message":"no such voice","type":"invalid_request_error","param":"voice","code":null}}`}
	case "limited", "busy":
		return s.refuseOnce(model, r.Body)
	}
	if r.Path != "/v1/chat/completions" {
		return openaitest.Dials{} // what the mock says by itself
	}
	return said(r.Body, "Hello", " world")
}

// refuseOnce refuses the first request with a prompt, and answers it from then on.
func (s *scripted) refuseOnce(model, body string) openaitest.Dials {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := model + "/" + lastMessage(body).Get("content").String()
	if s.tried[key]++; s.tried[key] > 1 {
		return said(body, "Hello", " again")
	}
	if model == "busy" {
		return openaitest.Dials{
			Status: 503, Header: map[string]string{"Retry-After": fmt.Sprint(retryAfter.Seconds())},
			Body: `{"error":{"message":"Overloaded","type":"overloaded_error"}}`,
		}
	}
	return openaitest.Dials{
		Status: 429, Header: map[string]string{"Retry-After-Ms": fmt.Sprint(retryAfter.Milliseconds())},
		Body: `{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}`,
	}
}

// attempts checks that each prompt to a model that refuses the first request was sent twice, no more and no less.
func (s *scripted) attempts(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wrong []error
	for key, n := range s.tried {
		if n != 2 {
			wrong = append(wrong, fmt.Errorf("%s: %d requests", key, n))
		}
	}
	if len(s.tried) == 0 {
		return errors.New("nobody asked")
	}
	return errors.Join(wrong...)
}

func lastMessage(body string) gjson.Result {
	messages := gjson.Get(body, "messages").Array()
	if len(messages) == 0 {
		return gjson.Result{}
	}
	return messages[len(messages)-1]
}

// said answers with tokens, in the form that the body asks for.
func said(body string, tokens ...string) openaitest.Dials {
	if gjson.Get(body, "stream").Bool() {
		return openaitest.Dials{Events: append(openaitest.Answer(tokens...), openaitest.Usage)}
	}
	text := fmt.Sprintf("%q", strings.Join(tokens, ""))
	return openaitest.Dials{Header: map[string]string{"Content-Type": "application/json"}, Body: openaitest.Response(text[1 : len(text)-1])}
}

// toolAnswer asks for the weather of two cities, and sums up what it is told. Its deltas lack the index, as Google's do.
func toolAnswer(body string) openaitest.Dials {
	if lastMessage(body).Get("role").Str == "tool" {
		return said(body, "Bern has ", lastMessage(body).Get("content").String(), " degrees.")
	}
	const (
		first  = `{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bern\"}"}}`
		second = `{"id":"call_2","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}`
	)
	if !gjson.Get(body, "stream").Bool() {
		return openaitest.Dials{Header: map[string]string{"Content-Type": "application/json"}, Body: strings.NewReplacer(
			`"content":"",`, `"content":null,"tool_calls":[`+first+`,`+second+`],`, `"stop"`, `"tool_calls"`).Replace(openaitest.Response(""))}
	}
	return openaitest.Dials{Events: []string{
		openaitest.Chunk(`"delta":{"content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]},"finish_reason":null`),
		openaitest.Chunk(`"delta":{"tool_calls":[{"function":{"arguments":"{\"city\":"}}]},"finish_reason":null`),
		openaitest.Chunk(`"delta":{"tool_calls":[{"function":{"arguments":"\"Bern\"}"}}]},"finish_reason":null`),
		openaitest.Chunk(`"delta":{"tool_calls":[` + second + `]},"finish_reason":null`),
		openaitest.Chunk(`"delta":{},"finish_reason":"tool_calls"`),
		openaitest.Usage,
	}}
}
