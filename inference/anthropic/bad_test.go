package anthropic_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/schemas"
)

// TestBadServers has a server for every way that an answer may not be whole. None may look like a whole one, neither to
// a caller who speaks the dialect nor to one whose chat request was translated.
func TestBadServers(t *testing.T) {
	t.Parallel()
	whole := anthropictest.Answer("Hello", " world")
	failure := `{"type":"error","error":{"type":"overloaded_error","message":"canary"}}`
	sse := func(lines string) anthropictest.Dials {
		return anthropictest.Dials{Body: lines, Header: map[string]string{"Content-Type": "text/event-stream"}}
	}
	noReason := append(append([]string{}, whole[:len(whole)-2]...), `{"type":"message_stop"}`)
	for _, test := range []struct {
		name   string
		body   string
		dials  anthropictest.Dials
		code   schemas.Code
		events int // of a relayed answer
		says   string
	}{
		{"cut after the start", messages, anthropictest.Dials{Cut: 1}, schemas.CodeUpstreamInterrupted, 1, "message_stop"},
		{"cut in the text", messages, anthropictest.Dials{Cut: 3}, schemas.CodeUpstreamInterrupted, 3, "message_stop"},
		{"cut before message_stop", messages, anthropictest.Dials{Cut: len(whole) - 1}, schemas.CodeUpstreamInterrupted, len(whole) - 1, "message_stop"},
		{"cut inside an event", messages, sse("event: message_start\ndata: " + whole[0] + "\n\nevent: content_block_start\ndata: {\"type\":\"content_bl"), schemas.CodeUpstreamInterrupted, 1, "message_stop"},
		{"broken connection", messages, anthropictest.Dials{Reset: 2}, schemas.CodeUpstreamInterrupted, 2, "broke"},
		{"no reason to stop", messages, anthropictest.Dials{Events: noReason}, schemas.CodeUpstreamInterrupted, len(noReason), "stop_reason"},
		{"no start", messages, anthropictest.Dials{Events: whole[1:]}, schemas.CodeUpstreamInterrupted, len(whole) - 1, ""},
		{"nothing", messages, anthropictest.Dials{Events: []string{}}, schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"only pings", messages, sse(strings.Repeat("event: ping\ndata: {\"type\":\"ping\"}\n\n", 3)), schemas.CodeUpstreamInterrupted, 0, "without sending an event"},
		{"error event", messages, anthropictest.Dials{Events: append(append([]string{}, whole[:2]...), failure)}, schemas.CodeOverloaded, 2, ""},
		{"error first", messages, anthropictest.Dials{Events: []string{failure}}, schemas.CodeOverloaded, 0, ""},
		{"error document", messages, anthropictest.Dials{Body: failure}, schemas.CodeOverloaded, 0, ""},
		{"a message instead of a stream", messages, anthropictest.Dials{Body: anthropictest.Message("canary")}, schemas.CodeUpstreamError, 0, "instead of a stream"},
		{"web page", messages, anthropictest.Dials{Body: "<html>canary"}, schemas.CodeUpstreamError, 0, "web page"},
		{"no JSON in an event", messages, sse("event: message_start\ndata: canary\n\n"), schemas.CodeUpstreamError, 0, "not a JSON object"},
		{"no type in an event", messages, sse("event: message_start\ndata: {\"a\":\"canary\"}\n\n"), schemas.CodeUpstreamError, 0, "not a JSON object"},
		{"chunks of the other dialect", messages, sse("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"), schemas.CodeUpstreamError, 0, "not a JSON object"},
		{"unary: no reason to stop", unary(messages), anthropictest.Dials{Body: strings.Replace(anthropictest.Message("canary"), `"end_turn"`, "null", 1)}, schemas.CodeUpstreamInterrupted, 0, "stop_reason"},
		{"unary: error with status 200", unary(messages), anthropictest.Dials{Body: failure}, schemas.CodeOverloaded, 0, ""},
		{"unary: something else", unary(messages), anthropictest.Dials{Body: `{"type":"canary"}`}, schemas.CodeUpstreamError, 0, "not a message"},
		{"unary: web page", unary(messages), anthropictest.Dials{Body: "<html>canary"}, schemas.CodeUpstreamError, 0, "web page"},
		{"unary: empty", unary(messages), anthropictest.Dials{Body: "\n"}, schemas.CodeUpstreamError, 0, "empty body"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, op := range []schemas.Op{schemas.OpMessages, schemas.OpChat} {
				b, _ := start(t, anthropic.Config{}, test.dials)
				body := test.body
				if op == schemas.OpChat {
					body = chat
					if !strings.Contains(test.body, "stream") {
						body = unary(chat)
					}
				}
				events, _, err := generate(t.Context(), b, request(op, body))
				if err == nil {
					t.Fatalf("%s: %d events passed for a whole answer", op, len(events))
				}
				if err.Code != test.code || !strings.Contains(err.Message, test.says) || op == schemas.OpMessages && len(events) != test.events {
					t.Errorf("%s: %d events, then %v\nwant %d, then %s about %q", op, len(events), err, test.events, test.code, test.says)
				}
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("%s: it quotes the server: %v", op, err)
				}
			}
		})
	}
}

// TestOddServers has servers that are strange and whose answers are whole all the same.
func TestOddServers(t *testing.T) {
	t.Parallel()
	whole := anthropictest.Answer("Hello")
	text := func(end string) string {
		var b strings.Builder
		for _, event := range whole {
			b.WriteString("data: " + event + end + end)
		}
		return b.String()
	}
	for name, dials := range map[string]anthropictest.Dials{
		"names left out":        {Body: text("\n")},
		"CRLF":                  {Body: text("\r\n")},
		"no blank line at end":  {Body: strings.TrimSpace(text("\n"))},
		"silent after the end":  {Events: append(append([]string{}, whole...), `{"type":"ping"}`), Hold: len(whole)},
		"breaks after the end":  {Events: append(append([]string{}, whole...), `{"type":"ping"}`), Reset: len(whole)},
		"goes on after the end": {Events: append(append([]string{}, whole...), `{"type":"later"}`)},
		"end mark of the other": {Body: text("\n") + "data: [DONE]\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := start(t, anthropic.Config{}, dials)
			events, _, err := generate(t.Context(), b, request(schemas.OpMessages, messages))
			if err != nil || len(events) != len(whole) {
				t.Errorf("%d events of %d, %v", len(events), len(whole), err)
			}
		})
	}
}
