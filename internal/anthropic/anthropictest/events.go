package anthropictest

import (
	"fmt"
	"strings"
)

// Start is the first event of every answer.
const Start = `{"type":"message_start","message":{"id":"msg_up","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}}}`

// Answer is a whole answer of these pieces of text, as the data of its events.
func Answer(pieces ...string) []string {
	return Whole("end_turn", Text(0, pieces...))
}

// Whole is an answer of these blocks that ends for a reason.
func Whole(stopReason string, blocks ...[]string) []string {
	events := []string{Start}
	for _, block := range blocks {
		events = append(events, block...)
	}
	return append(events,
		fmt.Sprintf(`{"type":"message_delta","delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":7}}`, stopReason),
		`{"type":"message_stop"}`)
}

// Text is a block of text.
func Text(index int, pieces ...string) []string {
	return block(index, `{"type":"text","text":""}`, "text_delta", "text", pieces)
}

// Thinking is a block of thought with its signature.
func Thinking(index int, signature string, pieces ...string) []string {
	events := block(index, `{"type":"thinking","thinking":"","signature":""}`, "thinking_delta", "thinking", pieces)
	end := len(events) - 1
	sign := fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":{"type":"signature_delta","signature":%q}}`, index, signature)
	return append(append(events[:end:end], sign), events[end])
}

// Tool is a call of a tool, with its input in pieces.
func Tool(index int, id, name string, pieces ...string) []string {
	return block(index, fmt.Sprintf(`{"type":"tool_use","id":%q,"name":%q,"input":{}}`, id, name), "input_json_delta", "partial_json", pieces)
}

func block(index int, start, delta, member string, pieces []string) []string {
	events := []string{fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, index, start)}
	for _, piece := range pieces {
		events = append(events, fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":{"type":%q,%q:%q}}`, index, delta, member, piece))
	}
	return append(events, fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, index))
}

// Message is a whole unary answer.
func Message(text string) string {
	return strings.ReplaceAll(`{"id":"msg_up","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"TEXT"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":7}}`, "TEXT", text)
}
