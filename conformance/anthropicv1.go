package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

// anthropicV1 is the SDK before it, which speaks version 2023-06-01.
type anthropicV1 struct{ client anthropic.Client }

func newAnthropicV1(url string) anthropicSDK {
	return anthropicV1{anthropic.NewClient(option.WithBaseURL(url), option.WithAPIKey("unused"), option.WithMaxRetries(0))}
}

func (anthropicV1) name() string { return "anthropic-sdk-go v1" }

func (anthropicV1) samples() bool { return true }

func (s anthropicV1) ask(ctx context.Context, q anthropicQuestion) (*anthropicAnswer, error) {
	block := anthropic.NewTextBlock(q.text)
	opts := []option.RequestOption{}
	params := anthropic.MessageNewParams{Model: anthropic.Model(q.model), MaxTokens: 2048}
	if q.think {
		block.OfText.CacheControl = anthropic.NewCacheControlEphemeralParam()
		params.Thinking = anthropic.ThinkingConfigParamOfEnabled(1024)
		opts = append(opts, option.WithHeader("anthropic-beta", "conformance-2026-01-01"))
	}
	if q.sample {
		opts = append(opts, option.WithJSONSet("temperature", 1))
	}
	if q.tool {
		params.Tools = []anthropic.ToolUnionParam{anthropic.ToolUnionParamOfTool(anthropic.ToolInputSchemaParam{Properties: map[string]any{"city": map[string]any{"type": "string"}}}, "weather")}
	}
	if q.after != nil {
		before := q.after.raw.(anthropic.Message)
		params.Messages = append(params.Messages, anthropic.NewUserMessage(anthropic.NewTextBlock("the first question")), before.ToParam())
		if q.tool {
			block = anthropic.NewToolResultBlock(q.after.toolID, q.text, false)
		}
	}
	params.Messages = append(params.Messages, anthropic.NewUserMessage(block))
	var response *http.Response
	opts = append(opts, option.WithResponseInto(&response))
	if !q.stream {
		message, err := s.client.Messages.New(ctx, params, opts...)
		if err != nil {
			return nil, err
		}
		return s.answer(*message, 0, response), nil
	}
	stream := s.client.Messages.NewStreaming(ctx, params, opts...)
	var message anthropic.Message
	deltas := 0
	for stream.Next() {
		if err := message.Accumulate(stream.Current()); err != nil {
			return nil, err
		}
		if stream.Current().Type == "content_block_delta" {
			deltas++
		}
	}
	return s.answer(message, deltas, response), stream.Err()
}

func (anthropicV1) answer(m anthropic.Message, deltas int, response *http.Response) *anthropicAnswer {
	a := &anthropicAnswer{stop: string(m.StopReason), inputTokens: m.Usage.InputTokens, outputTokens: m.Usage.OutputTokens, deltas: deltas, raw: m}
	if response != nil {
		a.requestID = response.Header.Get("request-id")
	}
	for _, block := range m.Content {
		switch block.Type {
		case "text":
			a.text += block.Text
		case "thinking":
			a.thinking, a.signature = block.Thinking, block.Signature
		case "tool_use":
			a.toolID, a.toolName, a.input = block.ID, block.Name, string(block.Input)
		}
	}
	return a
}

func (s anthropicV1) count(ctx context.Context, model, text string) (int64, error) {
	count, err := s.client.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{
		Model: anthropic.Model(model), Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(text))},
	})
	if err != nil {
		return 0, err
	}
	return count.InputTokens, nil
}

func (anthropicV1) asAPIError(err error) (apiError, bool) {
	e, ok := errors.AsType[*anthropic.Error](err)
	if !ok {
		return apiError{}, false
	}
	got := apiError{status: e.StatusCode, kind: string(e.Type()), message: e.RawJSON(), requestID: e.RequestID}
	if e.Response != nil {
		got.retryAfter = e.Response.Header.Get("Retry-After")
	}
	return got, true
}
