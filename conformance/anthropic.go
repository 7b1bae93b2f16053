package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// anthropicConfig has a model on a server that speaks the dialect, and one on a server that does not.
const anthropicConfig = `models:
  claude: {backends: [{name: native, protocol: anthropic, url: %[1]q, api_key: %[2]s}], retry: {max_tries: 1}}
  gpt: {backends: [{name: other, protocol: openai, url: %[1]q}], retry: {max_tries: 1}}
`

// Models of anthropicConfig.
const (
	native     = "claude"
	translated = "gpt"
)

// checkAnthropic runs the Anthropic SDKs, as an application would use them, against a server of its own: with a model whose
// server speaks the dialect and is relayed, and with one that is translated to.
func checkAnthropic(ctx context.Context, r *report, program, dir, node string, echo *server) error {
	fake := newAnthropicFake()
	defer fake.Close()
	dir = filepath.Join(dir, "anthropic")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "weir.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, anthropicConfig, fake.URL+"/v1", upstreamKey), 0o600); err != nil {
		return err
	}
	s, err := startServer(ctx, program, dir, "--config", file)
	if err != nil {
		return err
	}
	for _, model := range []string{native, translated} {
		checkAnthropicGo(ctx, r, newAnthropicV2(s.http), model)
		checkAnthropicGo(ctx, r, newAnthropicV1(s.http), model)
		checkNode(ctx, r, node, "anthropic.mjs", s.http, model)
	}
	r.check(ctx, "anthropic-sdk-go v2: echo without a configuration", func(ctx context.Context) error {
		return anthropicText(ctx, newAnthropicV2(echo.http), "echo", "echo: some words")
	})
	return s.Close()
}

// anthropicSDK is one major version of the SDK for Go.
type anthropicSDK interface {
	name() string
	samples() bool // the version of the API that it speaks has sampling parameters
	// ask sends one user message and returns the answer, streamed or not.
	ask(ctx context.Context, q anthropicQuestion) (*anthropicAnswer, error)
	count(ctx context.Context, model, text string) (int64, error)
	// asAPIError reads the SDK's own error type.
	asAPIError(err error) (apiError, bool)
}

type anthropicQuestion struct {
	model, text string
	stream      bool
	tool        bool // the model may call weather
	think       bool // with thinking, a beta and cache_control
	sample      bool // with a temperature
	after       *anthropicAnswer
}

// anthropicAnswer is what the SDK made of a message.
type anthropicAnswer struct {
	text, thinking, signature string
	toolID, toolName, input   string
	stop                      string
	inputTokens, outputTokens int64
	deltas                    int
	requestID                 string
	raw                       any // the SDK's own message
}

type apiError struct {
	status                int
	kind, message, detail string
	requestID             string
	retryAfter            string
}

func checkAnthropicGo(ctx context.Context, r *report, sdk anthropicSDK, model string) {
	check := func(name string, body func(ctx context.Context) error) {
		r.check(ctx, sdk.name()+", "+model+": "+name, body)
	}
	check("unary and stream", func(ctx context.Context) error { return anthropicText(ctx, sdk, model, "You said it") })
	check("a call of a tool, and its result", func(ctx context.Context) error { return anthropicTool(ctx, sdk, model) })
	check("count_tokens", func(ctx context.Context) error {
		n, err := sdk.count(ctx, model, "some words")
		if err != nil || n < 1 || model == native && n != 42 {
			return fmt.Errorf("%d tokens, %w", n, errors.Join(err))
		}
		return nil
	})
	check("a refused request", func(ctx context.Context) error {
		return wantAnthropicError(ctx, sdk, anthropicQuestion{model: model, text: "SAY refused"}, http.StatusBadRequest, "invalid_request_error")
	})
	check("529 before the first byte", func(ctx context.Context) error {
		return wantAnthropicError(ctx, sdk, anthropicQuestion{model: model, text: "SAY overloaded"}, 529, "overloaded_error")
	})
	check("an error after the first byte", func(ctx context.Context) error {
		return wantAnthropicCut(ctx, sdk, anthropicQuestion{model: model, text: "SAY broken", stream: true}, "overloaded_error")
	})
	check("an answer that is cut is an error", func(ctx context.Context) error {
		return wantAnthropicCut(ctx, sdk, anthropicQuestion{model: model, text: "SAY cut", stream: true}, "api_error")
	})
	check("a temperature, where the version has one", func(ctx context.Context) error {
		q := anthropicQuestion{model: model, text: "some words", sample: true}
		if sdk.samples() {
			_, err := sdk.ask(ctx, q)
			return err
		}
		return wantAnthropicError(ctx, sdk, q, http.StatusBadRequest, "invalid_request_error")
	})
	check("an unknown model", func(ctx context.Context) error {
		return wantAnthropicError(ctx, sdk, anthropicQuestion{model: "no-such-model", text: "x"}, http.StatusNotFound, "not_found_error")
	})
	if model != native {
		return
	}
	check("thinking, its signature, cache_control and betas", func(ctx context.Context) error { return anthropicThinking(ctx, sdk) })
}

func anthropicText(ctx context.Context, sdk anthropicSDK, model, want string) error {
	for _, stream := range []bool{false, true} {
		a, err := sdk.ask(ctx, anthropicQuestion{model: model, text: "some words", stream: stream})
		switch {
		case err != nil:
			return err
		case a.text != want || a.stop != "end_turn" || a.inputTokens == 0 || a.outputTokens == 0 || a.requestID == "" || stream && a.deltas < 3:
			return fmt.Errorf("stream %t: %+v", stream, a)
		}
	}
	return nil
}

func anthropicTool(ctx context.Context, sdk anthropicSDK, model string) error {
	for _, stream := range []bool{false, true} {
		a, err := sdk.ask(ctx, anthropicQuestion{model: model, text: "SAY tools", stream: stream, tool: true})
		if err != nil {
			return err
		}
		if a.stop != "tool_use" || a.toolID != "toolu_1" || a.toolName != "weather" || a.input != `{"city":"Zürich"}` || a.text != "You said it" {
			return fmt.Errorf("stream %t: %+v", stream, a)
		}
		if a, err = sdk.ask(ctx, anthropicQuestion{model: model, text: "it rains", stream: stream, tool: true, after: a}); err != nil || a.stop != "end_turn" {
			return fmt.Errorf("stream %t, after the tool's result: %+v, %w", stream, a, err)
		}
	}
	return nil
}

func anthropicThinking(ctx context.Context, sdk anthropicSDK) error {
	for _, stream := range []bool{false, true} {
		a, err := sdk.ask(ctx, anthropicQuestion{model: native, text: "SAY think", stream: stream, think: true})
		if err != nil {
			return err
		}
		if a.thinking != "Hm, hm" || a.signature != signature || a.text != "You said it" {
			return fmt.Errorf("stream %t: %+v", stream, a)
		}
		if _, err = sdk.ask(ctx, anthropicQuestion{model: native, text: "TURN 2", stream: stream, think: true, after: a}); err != nil {
			return fmt.Errorf("the next turn: %w", err)
		}
	}
	return nil
}

func wantAnthropicError(ctx context.Context, sdk anthropicSDK, q anthropicQuestion, status int, kind string) error {
	for _, stream := range []bool{false, true} {
		q.stream = stream
		_, err := sdk.ask(ctx, q)
		got, ok := sdk.asAPIError(err)
		if !ok || got.status != status || got.kind != kind || got.requestID == "" || got.message == "" || status == 529 && got.retryAfter != "3" {
			return fmt.Errorf("stream %t: want status %d %s, got %+v of %v", stream, status, kind, got, err)
		}
	}
	return nil
}

// wantAnthropicCut wants an error after part of the answer.
func wantAnthropicCut(ctx context.Context, sdk anthropicSDK, q anthropicQuestion, kind string) error {
	a, err := sdk.ask(ctx, q)
	got, ok := sdk.asAPIError(err)
	if !ok || got.kind != kind || a == nil || a.deltas == 0 || a.stop != "" {
		return fmt.Errorf("want %s after part of the answer; got %+v, then %+v of %v", kind, a, got, err)
	}
	return nil
}
