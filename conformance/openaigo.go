package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const prompt = "one two three four five six seven eight nine ten"

// checkOpenAIGo uses the SDK as an application would: only the base URL is ours.
func checkOpenAIGo(ctx context.Context, r *report, s *server) {
	client := openai.NewClient(option.WithBaseURL(s.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	var whole string
	r.check(ctx, "openai-go: unary", func(ctx context.Context) (err error) {
		whole, err = goUnary(ctx, client)
		return err
	})
	r.check(ctx, "openai-go: stream and accumulator agree with unary", func(ctx context.Context) error {
		return goStream(ctx, client, whole)
	})
	r.check(ctx, "openai-go: models", func(ctx context.Context) error {
		return goModels(ctx, client)
	})
	r.check(ctx, "openai-go: unknown model is 404 model_not_found", func(ctx context.Context) error {
		_, err := client.Chat.Completions.New(ctx, question("no-such-model", prompt))
		return wantAPIError(err, http.StatusNotFound, "model_not_found", "model")
	})
	r.check(ctx, "openai-go: unknown model when streaming is the same", func(ctx context.Context) error {
		stream := client.Chat.Completions.NewStreaming(ctx, question("no-such-model", prompt))
		for stream.Next() {
			return fmt.Errorf("got a chunk: %s", stream.Current().RawJSON())
		}
		return wantAPIError(stream.Err(), http.StatusNotFound, "model_not_found", "model")
	})
	r.check(ctx, "openai-go: missing messages is 400", func(ctx context.Context) error {
		params := question("echo", prompt)
		params.Messages = nil
		_, err := client.Chat.Completions.New(ctx, params)
		return wantAPIError(err, http.StatusBadRequest, "", "messages")
	})
	r.check(ctx, "openai-go: an Idempotency-Key gives one answer, and another body 422", func(ctx context.Context) error {
		return goIdempotency(ctx, client)
	})
}

func question(model, content string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(content)}}
}

func goUnary(ctx context.Context, client openai.Client) (string, error) {
	var response *http.Response
	completion, err := client.Chat.Completions.New(ctx, question("echo", prompt), option.WithResponseInto(&response))
	if err != nil {
		return "", err
	}
	switch {
	case len(completion.Choices) != 1:
		return "", fmt.Errorf("want one choice: %s", completion.RawJSON())
	case !strings.Contains(completion.Choices[0].Message.Content, "seven"):
		return "", fmt.Errorf("echo does not answer with the prompt: %s", completion.RawJSON())
	case completion.Choices[0].FinishReason != "stop" || completion.Usage.CompletionTokens == 0 || completion.ID == "":
		return "", fmt.Errorf("want an id, the finish reason stop, and usage: %s", completion.RawJSON())
	case response.Header.Get("X-Request-Id") == "":
		return "", fmt.Errorf("no X-Request-Id among %v", response.Header)
	}
	return completion.Choices[0].Message.Content, nil
}

func goStream(ctx context.Context, client openai.Client, whole string) error {
	params := question("echo", prompt)
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	accumulator, chunks, finished := openai.ChatCompletionAccumulator{}, 0, false
	for stream.Next() {
		if !accumulator.AddChunk(stream.Current()) {
			return fmt.Errorf("the accumulator refuses chunk %d: %s", chunks, stream.Current().RawJSON())
		}
		if content, ok := accumulator.JustFinishedContent(); ok {
			finished = content == whole
		}
		chunks++
	}
	if err := stream.Err(); err != nil {
		return err
	}
	switch got := accumulator.Choices; {
	case len(got) != 1 || got[0].Message.Content != whole || got[0].FinishReason != "stop" || !finished:
		return fmt.Errorf("accumulated %+v, unary said %q", got, whole)
	case chunks < 3:
		return fmt.Errorf("only %d chunks: that is no stream", chunks)
	case accumulator.Usage.TotalTokens == 0:
		return errors.New("no usage although it was asked for")
	}
	return nil
}

func goModels(ctx context.Context, client openai.Client) error {
	page, err := client.Models.List(ctx)
	if err != nil {
		return err
	}
	for _, model := range page.Data {
		if model.ID == "echo" && model.Object == "model" {
			return nil
		}
	}
	return fmt.Errorf("echo is not among them: %s", page.RawJSON())
}

func goIdempotency(ctx context.Context, client openai.Client) error {
	key := option.WithHeader("Idempotency-Key", "conformance-go")
	var first, second *http.Response
	one, err := client.Chat.Completions.New(ctx, question("echo", prompt), key, option.WithResponseInto(&first))
	if err != nil {
		return err
	}
	two, err := client.Chat.Completions.New(ctx, question("echo", prompt), key, option.WithResponseInto(&second))
	if err != nil {
		return err
	}
	if one.RawJSON() != two.RawJSON() {
		return fmt.Errorf("two answers for one key:\n%s\n%s", one.RawJSON(), two.RawJSON())
	}
	if a, b := first.Header.Get("X-Request-Id"), second.Header.Get("X-Request-Id"); a != b {
		return fmt.Errorf("two requests for one key: %s and %s", a, b)
	}
	_, err = client.Chat.Completions.New(ctx, question("echo", "something else"), key)
	return wantAPIError(err, http.StatusUnprocessableEntity, "idempotency_mismatch", "")
}

// wantAPIError checks what the SDK made of an error. An empty code or parameter may be anything.
func wantAPIError(err error, status int, code, param string) error {
	got, ok := errors.AsType[*openai.Error](err)
	switch {
	case !ok:
		return fmt.Errorf("want an API error of status %d, got %v", status, err)
	case got.StatusCode != status, code != "" && got.Code != code, param != "" && got.Param != param, got.Message == "", got.Type == "":
		return fmt.Errorf("want status %d, code %q, param %q, a message and a type; got status %d: %s", status, code, param, got.StatusCode, got.RawJSON())
	}
	return nil
}
