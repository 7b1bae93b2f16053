package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
)

// checkResponses uses the Responses API with the SDKs, on echo and on a model server that speaks chat completions only.
func checkResponses(ctx context.Context, r *report, s *server, nats natsCLI, weir, node string) {
	mock, err := startChatMock()
	if err != nil {
		r.add("responses: a model server", err)
		return
	}
	defer func() { _ = mock.Close() }()
	other, err := startMockServer(ctx, weir, s.dir, mock.url)
	if err != nil {
		r.add("responses: a server with a model that speaks chat", err)
		return
	}
	defer func() { _ = other.Close() }()
	for _, c := range []struct {
		script, base string
	}{{"responses.mjs", s.http}, {"responses-tools.mjs", other.http}} {
		runNode(ctx, r, node, c.script, c.base+"/v1")
	}
	client := openai.NewClient(option.WithBaseURL(s.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	r.check(ctx, "openai-go: responses: unary, stream and retrieve agree", func(ctx context.Context) error { return goResponses(ctx, client) })
	r.check(ctx, "openai-go: responses: background, poll, stream from the middle, cancel, delete", func(ctx context.Context) error {
		return goBackground(ctx, client)
	})
	r.check(ctx, "openai-go: responses: an unknown response is 404", func(ctx context.Context) error {
		_, err := client.Responses.Get(ctx, "resp_none", responses.ResponseGetParams{})
		return wantAPIError(err, http.StatusNotFound, "not_found", "")
	})
	tools := openai.NewClient(option.WithBaseURL(other.http+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	r.check(ctx, "openai-go: responses: a tool call and its output", func(ctx context.Context) error { return goToolRound(ctx, tools) })
	r.check(ctx, "nats: a Responses request that was published has a response over HTTP", func(ctx context.Context) error {
		return natsResponse(ctx, s, nats)
	})
}

// startMockServer starts Weir with the one model mock.
func startMockServer(ctx context.Context, weir, dir, url string) (*server, error) {
	dir = filepath.Join(dir, "mock")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "weir.yaml")
	text := "models:\n  mock:\n    backends:\n      - {name: mock, protocol: openai, url: " + url + "}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return startServer(ctx, weir, dir, "--config", config)
}

// runNode runs a script that prints a line per check: its name, and after a tab the reason if it failed.
func runNode(ctx context.Context, r *report, node, script, base string) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	command := exec.CommandContext(ctx, node, script, base)
	var output, problems bytes.Buffer
	command.Stdout, command.Stderr = &output, &problems
	err := command.Run()
	for lines := bufio.NewScanner(&output); lines.Scan(); {
		name, reason, failed := strings.Cut(lines.Text(), "\t")
		if failed {
			r.add(name, errors.New(reason))
		} else {
			r.add(name, nil)
		}
	}
	if err != nil {
		r.add(script+" runs to its end", fmt.Errorf("%w: %s", err, &problems))
	}
}

func responseTo(model, input string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt(input)}}
}

func goResponses(ctx context.Context, client openai.Client) error {
	whole, err := client.Responses.New(ctx, responseTo("echo", prompt))
	if err != nil {
		return err
	}
	if !strings.Contains(whole.OutputText(), "seven") || whole.Status != "completed" || whole.Usage.OutputTokens == 0 || whole.CreatedAt == 0 {
		return fmt.Errorf("the response is %s", whole.RawJSON())
	}
	again, err := client.Responses.Get(ctx, whole.ID, responses.ResponseGetParams{})
	if err != nil || again.RawJSON() != whole.RawJSON() {
		return fmt.Errorf("retrieved as %s: %v", again.RawJSON(), err)
	}
	stream := client.Responses.NewStreaming(ctx, responseTo("echo", prompt))
	text, last := "", responses.Response{}
	for n := int64(0); stream.Next(); n++ {
		event := stream.Current()
		if event.SequenceNumber != n {
			return fmt.Errorf("event %d: %s", n, event.RawJSON())
		}
		switch e := event.AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			text += e.Delta
		case responses.ResponseCompletedEvent:
			last = e.Response
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	if text != whole.OutputText() || last.OutputText() != text {
		return fmt.Errorf("streamed %q, and at the end %s", text, last.RawJSON())
	}
	return nil
}

// later asks for a long answer that nobody waits for.
func later() (responses.ResponseNewParams, option.RequestOption) {
	params := responseTo("echo", prompt)
	params.Background = param.NewOpt(true)
	return params, option.WithJSONSet("x_echo", map[string]int{"tokens": 60, "interval_ms": 20})
}

func goBackground(ctx context.Context, client openai.Client) error {
	params, pace := later()
	response, err := client.Responses.New(ctx, params, pace)
	if err != nil {
		return err
	}
	if response.Status != "queued" {
		return fmt.Errorf("created as %s", response.RawJSON())
	}
	var events []string
	stream := client.Responses.GetStreaming(ctx, response.ID, responses.ResponseGetParams{})
	for stream.Next() {
		events = append(events, stream.Current().RawJSON())
	}
	if err := stream.Err(); err != nil {
		return err
	}
	if err := poll(ctx, func() (bool, error) {
		response, err = client.Responses.Get(ctx, response.ID, responses.ResponseGetParams{})
		return err == nil && response.Status == "completed", err
	}); err != nil {
		return err
	}
	stream = client.Responses.GetStreaming(ctx, response.ID, responses.ResponseGetParams{StartingAfter: param.NewOpt(int64(20))})
	for n := 21; stream.Next(); n++ {
		if n >= len(events) || stream.Current().RawJSON() != events[n] {
			return fmt.Errorf("event %d was another: %s", n, stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil || len(events) < 60 {
		return fmt.Errorf("%d events, %w", len(events), err)
	}
	return goCancel(ctx, client)
}

func goCancel(ctx context.Context, client openai.Client) error {
	params, pace := later()
	response, err := client.Responses.New(ctx, params, pace)
	if err != nil {
		return err
	}
	for range 2 {
		cancelled, err := client.Responses.Cancel(ctx, response.ID)
		if err != nil || cancelled.Status != "cancelled" {
			return fmt.Errorf("cancelled as %s: %v", cancelled.RawJSON(), err)
		}
	}
	if err := client.Responses.Delete(ctx, response.ID); err != nil {
		return err
	}
	_, err = client.Responses.Get(ctx, response.ID, responses.ResponseGetParams{})
	return wantAPIError(err, http.StatusNotFound, "not_found", "")
}

func goToolRound(ctx context.Context, client openai.Client) error {
	params := responseTo("mock", "what is the weather in Paris?")
	params.Tools = []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{
		Name: "get_weather", Strict: param.NewOpt(true),
		Parameters: map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}},
	}}}
	response, err := client.Responses.New(ctx, params)
	if err != nil {
		return err
	}
	call := response.Output[0].AsFunctionCall()
	if call.Name != "get_weather" || string(call.Arguments) != `{"city":"Paris"}` {
		return fmt.Errorf("called %s", response.RawJSON())
	}
	output := responses.ResponseInputItemFunctionCallOutputParam{CallID: param.NewOpt(call.CallID)}
	output.Output.OfString = param.NewOpt("sunny")
	params.PreviousResponseID = param.NewOpt(response.ID)
	params.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{{OfFunctionCallOutput: &output}}}
	if response, err = client.Responses.New(ctx, params); err != nil {
		return err
	}
	if response.OutputText() != "The tool said: sunny" {
		return fmt.Errorf("answered %s", response.RawJSON())
	}
	return nil
}

// natsResponse publishes a Responses request as a service would, and retrieves its response.
func natsResponse(ctx context.Context, s *server, nats natsCLI) error {
	const id = "conformance-responses"
	_, err := nats.run(ctx, "req", "--raw", "llm.requests.default.echo", `{"model":"echo","input":"over NATS"}`,
		"--header", "Llm-Op:responses", "--header", "Llm-Request-Id:"+id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		status, body, err := s.get(ctx, "/v1/responses/resp_"+id)
		var response struct {
			Status string
			Output []struct{ Content []struct{ Text string } }
		}
		if err != nil || status != http.StatusOK || json.Unmarshal(body, &response) != nil || response.Status != "completed" {
			return false, err
		}
		if text := response.Output[0].Content[0].Text; text != "echo: over NATS" {
			return false, fmt.Errorf("the response is %s", body)
		}
		return true, nil
	})
}
