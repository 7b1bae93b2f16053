package anthropic

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// message is an answer as a client puts it together from events.
type message struct {
	Content    []block
	StopReason string
	Input      int64
	Output     int64
}

type block struct {
	Type, Text, Thinking, Signature, ID, Name, Input string
}

// assemble follows the rules of the protocol as a strict client does: every event in its place, one block at a time, the
// indexes without a gap. Whole says that message_stop has come.
func assemble(events []string) (m message, whole bool, err error) {
	open, started, ended := -1, false, false
	for i, raw := range events {
		var e struct {
			Type    string
			Index   int
			Message struct{ ID, Role, Model string }
			Block   struct{ Type, Text, Thinking, ID, Name string } `json:"content_block"`
			Delta   struct {
				Type, Text, Thinking, Signature string
				PartialJSON                     string `json:"partial_json"`
				StopReason                      string `json:"stop_reason"`
			}
			Usage struct {
				Input  int64 `json:"input_tokens"`
				Output int64 `json:"output_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(raw), &e); err != nil {
			return m, false, fmt.Errorf("event %d: %w: %s", i, err, raw)
		}
		if strings.ContainsAny(raw, "\r\n") {
			return m, false, fmt.Errorf("event %d has several lines: %s", i, raw)
		}
		bad := fmt.Errorf("event %d is out of place: %s", i, raw)
		if whole || (e.Type == MessageStart) == started {
			return m, false, bad
		}
		switch e.Type {
		case MessageStart:
			started = true
			if e.Message.ID == "" || e.Message.Role != "assistant" {
				return m, false, bad
			}
		case ContentBlockStart:
			if open >= 0 || e.Index != len(m.Content) || ended {
				return m, false, bad
			}
			open = e.Index
			m.Content = append(m.Content, block{Type: e.Block.Type, Text: e.Block.Text, Thinking: e.Block.Thinking, ID: e.Block.ID, Name: e.Block.Name})
		case ContentBlockDelta:
			if open != e.Index {
				return m, false, bad
			}
			b := &m.Content[open]
			kind := map[string]string{"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking", "input_json_delta": "tool_use"}[e.Delta.Type]
			if kind != b.Type {
				return m, false, bad
			}
			b.Text, b.Thinking, b.Input = b.Text+e.Delta.Text, b.Thinking+e.Delta.Thinking, b.Input+e.Delta.PartialJSON
			b.Signature += e.Delta.Signature
		case ContentBlockStop:
			if open != e.Index {
				return m, false, bad
			}
			open = -1
		case MessageDelta:
			if open >= 0 || ended || e.Delta.StopReason == "" {
				return m, false, bad
			}
			ended, m.StopReason, m.Input, m.Output = true, e.Delta.StopReason, e.Usage.Input, e.Usage.Output
		case MessageStop:
			if !ended {
				return m, false, bad
			}
			whole = true
		default:
			return m, false, bad
		}
	}
	if !started {
		return m, false, errors.New("no message_start")
	}
	return m, whole, nil
}
