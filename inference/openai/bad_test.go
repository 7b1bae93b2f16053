package openai_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// TestBadUpstreams has a server for every way that one was seen to fail. None of them may look like a whole answer.
func TestBadUpstreams(t *testing.T) {
	t.Parallel()
	whole := openaitest.Answer("Hello", " world")
	cut := whole[:len(whole)-1]
	finish := openaitest.Chunk(`"delta":{},"finish_reason":"error"`)
	large := openaitest.Answer(strings.Repeat("x", 17<<20))
	for _, test := range []struct {
		name   string
		body   string
		dials  openaitest.Dials
		code   schemas.Code
		events int
		says   string
	}{
		{"HTML page", streamed, openaitest.Dials{Body: "<!DOCTYPE html><p>canary"}, schemas.CodeUpstreamError, 0, "web page"},
		{"HTML page, unary", unary, openaitest.Dials{Body: "\n<html>canary"}, schemas.CodeUpstreamError, 0, "web page"},
		{"HTML with status 502", unary, openaitest.Dials{Status: 502, Body: "<html>canary"}, schemas.CodeUpstreamError, 0, "web page"},
		{"garbage", streamed, openaitest.Dials{Body: "canary\x00\xff\n\ncanary"}, schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"garbage, unary", unary, openaitest.Dials{Body: "canary\x00\xff"}, schemas.CodeUpstreamError, 0, "not JSON"},
		{"garbage in an event", streamed, openaitest.Dials{Events: []string{whole[0], "canary"}}, schemas.CodeUpstreamError, 1, "not a JSON object"},
		{"list in an event", streamed, openaitest.Dials{Events: []string{`["canary"]`}}, schemas.CodeUpstreamError, 0, "not a JSON object"},
		{"bottomless event", streamed, openaitest.Dials{Events: []string{strings.Repeat("[", 8<<20)}}, schemas.CodeUpstreamError, 0, "not a JSON object"},
		{"bottomless response", unary, openaitest.Dials{Body: strings.Repeat("[", 8<<20)}, schemas.CodeUpstreamError, 0, "not JSON"},
		{"empty stream", streamed, openaitest.Dials{Events: []string{}, NoDone: true}, schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"empty stream with end mark", streamed, openaitest.Dials{Events: []string{}}, schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"empty response", unary, openaitest.Dials{Status: 200, Body: "\n"}, schemas.CodeUpstreamError, 0, "empty body"},
		{"only comments", streamed, openaitest.Dials{Body: ": canary\n\n: canary\n\n"}, schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"error after 200", streamed, openaitest.Dials{Events: []string{whole[0], whole[1], `{"error":{"message":"canary","type":"server_error"}}`}}, schemas.CodeUpstreamError, 2, ""},
		{"error text after 200", streamed, openaitest.Dials{Events: []string{whole[0], `{"error":"canary"}`}}, schemas.CodeUpstreamError, 1, ""},
		{"error event", streamed, openaitest.Dials{Body: "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"canary\"}}\n\n"}, schemas.CodeOverloaded, 0, ""},
		{"error event that is text", streamed, openaitest.Dials{Body: "event: error\ndata: canary\n\n"}, schemas.CodeUpstreamError, 0, ""},
		{"error event without a member error", streamed, openaitest.Dials{Body: "event: error\ndata: {\"message\":\"canary\",\"code\":429}\n\n"}, schemas.CodeRateLimit, 0, ""},
		{"error object as a stream", streamed, openaitest.Dials{Body: `{"error":{"message":"canary","code":"rate_limit_exceeded"}}`}, schemas.CodeRateLimit, 0, ""},
		{"error object with 200, unary", unary, openaitest.Dials{Body: `{"error":{"message":"canary","code":500}}`}, schemas.CodeUpstreamError, 0, ""},
		{"finish_reason error", streamed, openaitest.Dials{Events: append(append([]string{}, cut...), finish)}, schemas.CodeUpstreamError, 3, "finish_reason"},
		{"no finish_reason", streamed, openaitest.Dials{Events: cut}, schemas.CodeUpstreamInterrupted, 3, "no finish_reason"},
		{"neither finish_reason nor end mark", streamed, openaitest.Dials{Events: cut, NoDone: true}, schemas.CodeUpstreamInterrupted, 3, "no finish_reason"},
		{"no finish_reason, unary", unary, openaitest.Dials{Body: strings.Replace(openaitest.Response("a"), `"stop"`, "null", 1)}, schemas.CodeUpstreamInterrupted, 0, "no finish_reason"},
		{"cut inside an event", streamed, openaitest.Dials{Body: "data: " + whole[0] + "\n\ndata: {\"choices\":[{\"ind"}, schemas.CodeUpstreamInterrupted, 1, ""},
		{"one of two choices", strings.Replace(streamed, "{", `{"n":2,`, 1), openaitest.Dials{Events: whole, NoDone: true}, schemas.CodeUpstreamInterrupted, 4, ""},
		{"broken connection", streamed, openaitest.Dials{Reset: 2}, schemas.CodeUpstreamInterrupted, 2, "broke"},
		{"no choices, unary", unary, openaitest.Dials{Body: `{"id":"x","choices":[]}`}, schemas.CodeUpstreamError, 0, "no choices"},
		{"document instead of a stream", streamed, openaitest.Dials{Body: openaitest.Response("canary")}, schemas.CodeUpstreamError, 0, "instead of a stream"},
		{"17 MiB event", streamed, openaitest.Dials{Events: large}, schemas.CodeUpstreamError, 1, "16 MiB"},
		{"17 MiB response", unary, openaitest.Dials{Body: openaitest.Response(strings.Repeat("x", 17<<20))}, schemas.CodeUpstreamError, 0, "16 MiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, _ := start(t, openai.Config{}, test.dials)
			events, _, err := generate(t.Context(), b, request(test.body))
			if err == nil {
				t.Fatalf("%d events passed for a whole answer", len(events))
			}
			if err.Code != test.code || !strings.Contains(err.Message, test.says) || len(events) != test.events {
				t.Errorf("%d events, then %v\nwant %d, then %s about %q", len(events), err, test.events, test.code, test.says)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("it quotes the server: %v", err)
			}
		})
	}
}

// TestOddUpstreams has servers that are strange and whose answers are whole all the same.
func TestOddUpstreams(t *testing.T) {
	t.Parallel()
	whole := openaitest.Answer("Hello", " world")
	sse := func(end string, events ...string) string {
		return "data: " + strings.Join(events, end+end+"data: ") + end + end
	}
	choice1 := strings.Replace(openaitest.Chunk(`"delta":{"content":"b"},"finish_reason":"stop"`), `"index":0`, `"index":1`, 1)
	for _, test := range []struct {
		name   string
		config openai.Config
		body   string
		dials  openaitest.Dials
		events int
	}{
		{"no end mark", openai.Config{}, streamed, openaitest.Dials{NoDone: true}, 4},
		{"no blank line at the end", openai.Config{}, streamed, openaitest.Dials{Body: strings.TrimSpace(sse("\n", whole...))}, 4},
		{"CRLF and comments", openai.Config{}, streamed, openaitest.Dials{Body: ": hi\r\n\r\n" + sse("\r\n", whole...) + "data: [DONE]\r\n\r\n"}, 4},
		{"wrong content type", openai.Config{}, streamed, openaitest.Dials{Body: sse("\n", whole...), Header: map[string]string{"Content-Type": "application/json"}}, 4},
		{"silent after the answer", openai.Config{}, streamed, openaitest.Dials{Events: append(append([]string{}, whole...), openaitest.Usage), Hold: 4}, 4},
		{"breaks after the answer", openai.Config{}, streamed, openaitest.Dials{Events: append(append([]string{}, whole...), openaitest.Usage), Reset: 4}, 4},
		{"10 MB event", openai.Config{}, streamed, openaitest.Dials{Events: openaitest.Answer(strings.Repeat("x", 10<<20))}, 3},
		{"10 MB response", openai.Config{}, unary, openaitest.Dials{Body: openaitest.Response(strings.Repeat("x", 10<<20))}, 1},
		{"ignores n", openai.Config{}, strings.Replace(streamed, "{", `{"n":2,`, 1), openaitest.Dials{}, 4},
		{"two choices", openai.Config{}, strings.Replace(streamed, "{", `{"n":2,`, 1), openaitest.Dials{Events: append(openaitest.Answer("a"), choice1)}, 4},
		{"no finish_reason allowed", openai.Config{RequireFinishReason: new(false)}, streamed, openaitest.Dials{Events: whole[:3]}, 3},
		{"no finish_reason allowed, unary", openai.Config{RequireFinishReason: new(false)}, unary,
			openaitest.Dials{Body: strings.Replace(openaitest.Response("a"), `"stop"`, "null", 1)}, 1},
		{"several lines per event", openai.Config{}, streamed, openaitest.Dials{Body: "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"}, 1},
		{"bad UTF-8", openai.Config{}, streamed, openaitest.Dials{Body: sse("\n", openaitest.Chunk("\"delta\":{\"content\":\"\xff\"},\"finish_reason\":\"stop\""))}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, _ := start(t, test.config, test.dials)
			events, _, err := generate(t.Context(), b, request(test.body))
			if err != nil || len(events) != test.events {
				t.Errorf("%d events, then %v; want %d and a whole answer", len(events), err, test.events)
			}
			for _, event := range events {
				if strings.ContainsAny(event, "\r\n") {
					t.Errorf("event of several lines: %q", event)
				}
			}
		})
	}
}

func TestEndMarkAloneNeedsPermission(t *testing.T) {
	t.Parallel()
	whole := openaitest.Answer("a")
	b, _ := start(t, openai.Config{RequireFinishReason: new(false)}, openaitest.Dials{Events: whole[:2], NoDone: true})
	if _, _, err := generate(t.Context(), b, request(streamed)); err == nil || err.Code != schemas.CodeUpstreamInterrupted {
		t.Errorf("error %v: without finish_reason the end mark is the only proof", err)
	}
}
