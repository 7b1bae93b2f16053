package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"
)

// checkScripted runs the clients against models that a mock plays.
func checkScripted(ctx context.Context, r *report, program, dir, node22, node, tests string) (err error) {
	s, err := startScripted(ctx, program, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	before := r.failed
	checkScriptedGo(ctx, r, s)
	checkNode(ctx, r, node22, "scripted.mjs", "openai", s.http+"/v1")
	checkNode(ctx, r, node, "scripted.mjs", "openai-6", s.http+"/v1")
	checkNode(ctx, r, node22, "aisdk.mjs", s.http+"/v1")
	r.check(ctx, "openai-go: its own tests pass, and every member they send arrives", (&suite{scripted: s, program: tests}).check)
	r.check(ctx, "the silence of a model is filled with comments, of one line each", s.checkHeartbeats)
	r.check(ctx, "every client that was refused once asked twice", s.attempts)
	if r.failed > before {
		fmt.Fprintf(r.out, "weir serve with scripted models printed:\n%s\n", s.output())
	}
	return nil
}

func (s *scripted) checkHeartbeats(ctx context.Context) error {
	_, body, err := s.do(ctx, http.MethodPost, "/v1/chat/completions", nil, []byte(`{"model":"slow","stream":true,"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		return err
	}
	if n := bytes.Count(body, []byte(": hb\n")); n < 4 || bytes.Contains(body, []byte(": hb\n\n")) {
		return fmt.Errorf("%d heartbeats in %s", n, body)
	}
	return nil
}

func checkScriptedGo(ctx context.Context, r *report, s *scripted) {
	client := openai.NewClient(option.WithBaseURL(s.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	for name, check := range map[string]func(context.Context, openai.Client) error{
		"tool calls, unary and streamed":                     goTools,
		"structured output":                                  goStructured,
		"a long stream with heartbeats":                      goSlow,
		"an error before and after the first byte":           goErrors,
		"a 429 and a 503 are tried again when they say":      goRetries,
		"completions, unary and streamed":                    goCompletions,
		"embeddings in both forms":                           goEmbeddings,
		"a model by its name, also with a slash in the name": goModel,
	} {
		r.check(ctx, "openai-go: "+name, func(ctx context.Context) error { return check(ctx, client) })
	}
}

func goTools(ctx context.Context, client openai.Client) error {
	params := question("tools", "hi")
	params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
		Name: "weather", Parameters: shared.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}},
	})}
	unary, err := client.Chat.Completions.New(ctx, params)
	if err != nil {
		return err
	}
	stream, accumulator := client.Chat.Completions.NewStreaming(ctx, params), openai.ChatCompletionAccumulator{}
	for stream.Next() {
		if !accumulator.AddChunk(stream.Current()) {
			return fmt.Errorf("the accumulator refuses %s", stream.Current().RawJSON())
		}
	}
	if stream.Err() != nil {
		return stream.Err()
	}
	for _, choices := range [][]openai.ChatCompletionChoice{unary.Choices, accumulator.Choices} {
		var cities []string
		for _, call := range choices[0].Message.ToolCalls {
			var arguments struct{ City string }
			if err := json.Unmarshal([]byte(call.Function.Arguments), &arguments); err != nil {
				return fmt.Errorf("arguments %q: %w", call.Function.Arguments, err)
			}
			cities = append(cities, call.ID+" "+arguments.City)
		}
		if !slices.Equal(cities, []string{"call_1 Bern", "call_2 Oslo"}) || choices[0].FinishReason != "tool_calls" {
			return fmt.Errorf("calls %q, finish reason %q", cities, choices[0].FinishReason)
		}
	}
	return nil
}

func goStructured(ctx context.Context, client openai.Client) error {
	params := question("structured", "hi")
	params.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "weather", Schema: json.RawMessage(
			`{"type":"object","properties":{"city":{"type":"string"},"degrees":{"type":"integer"}}}`)},
	}}
	completion, err := client.Chat.Completions.New(ctx, params)
	if err != nil {
		return err
	}
	if got := completion.Choices[0].Message.Content; got != `{"city":"Bern","degrees":7}` {
		return fmt.Errorf("got %s", got)
	}
	return nil
}

func goSlow(ctx context.Context, client openai.Client) error {
	var text strings.Builder
	stream := client.Chat.Completions.NewStreaming(ctx, question("slow", "hi"))
	for stream.Next() {
		if chunk := stream.Current(); len(chunk.Choices) > 0 {
			text.WriteString(chunk.Choices[0].Delta.Content)
		}
	}
	if stream.Err() != nil || text.String() != "one two three" {
		return fmt.Errorf("read %q, then %v", text.String(), stream.Err())
	}
	return nil
}

func goErrors(ctx context.Context, client openai.Client) error {
	_, err := client.Chat.Completions.New(ctx, question("refused", "hi"))
	if err := wantAPIError(err, http.StatusBadRequest, "upstream_rejected", "voice"); err != nil {
		return err
	}
	var text strings.Builder
	stream := client.Chat.Completions.NewStreaming(ctx, question("cut", "hi"))
	for stream.Next() {
		text.WriteString(stream.Current().Choices[0].Delta.Content)
	}
	if stream.Err() == nil || text.String() != "one two" {
		return fmt.Errorf("read %q, then %v", text.String(), stream.Err())
	}
	return nil
}

func goRetries(ctx context.Context, client openai.Client) error {
	for _, model := range []string{"limited", "busy"} {
		began := time.Now()
		completion, err := client.Chat.Completions.New(ctx, question(model, "openai-go"), option.WithMaxRetries(2))
		if err != nil {
			return err
		}
		if took := time.Since(began); took < retryAfter || completion.Choices[0].Message.Content != "Hello again" {
			return fmt.Errorf("%s: after %v: %s", model, took, completion.RawJSON())
		}
	}
	return nil
}

func goCompletions(ctx context.Context, client openai.Client) error {
	params := openai.CompletionNewParams{
		Model: "echo", MaxTokens: openai.Int(2),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"one two", "three"}},
	}
	completion, err := client.Completions.New(ctx, params)
	if err != nil {
		return err
	}
	var unary, streamed [2]string
	for _, choice := range completion.Choices {
		unary[choice.Index] = choice.Text
	}
	stream := client.Completions.NewStreaming(ctx, params)
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			streamed[choice.Index] += choice.Text
		}
	}
	if want := [2]string{"echo: one ", "echo: three"}; stream.Err() != nil || unary != want || streamed != want {
		return fmt.Errorf("unary %q, streamed %q, then %v", unary, streamed, stream.Err())
	}
	return nil
}

func goEmbeddings(ctx context.Context, client openai.Client) error {
	params := openai.EmbeddingNewParams{
		Model: "plain", Input: openai.EmbeddingNewParamsInputUnion{OfString: param.NewOpt("hi")},
	}
	floats, err := client.Embeddings.New(ctx, params)
	if err != nil {
		return err
	}
	params.EncodingFormat = openai.EmbeddingNewParamsEncodingFormatBase64
	packed, err := client.Embeddings.New(ctx, params)
	// The SDK knows numbers only, and leaves the text to the application.
	var embedding struct{ Embedding string }
	if err == nil {
		err = json.Unmarshal([]byte(packed.Data[0].RawJSON()), &embedding)
	}
	if err != nil {
		return err
	}
	if !slices.Equal(floats.Data[0].Embedding, []float64{1, -2.5}) || embedding.Embedding != "AACAPwAAIMA=" {
		return fmt.Errorf("numbers %v, base64 %q", floats.Data[0].Embedding, embedding.Embedding)
	}
	return nil
}

func goModel(ctx context.Context, client openai.Client) error {
	for _, id := range []string{"echo", "org/slashed"} {
		model, err := client.Models.Get(ctx, id)
		if err != nil {
			return err
		}
		if model.ID != id {
			return fmt.Errorf("got %s for %s", model.RawJSON(), id)
		}
	}
	_, err := client.Models.Get(ctx, "org/none")
	return wantAPIError(err, http.StatusNotFound, "model_not_found", "model")
}
