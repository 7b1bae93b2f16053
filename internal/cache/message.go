package cache

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// keepMessage takes an answer of the messages dialect that is nothing but text.
func keepMessage(said *Said) ([]byte, Reason) {
	response := said.Response
	if response == nil {
		var ok bool
		if response, ok = assembleMessage(said); !ok {
			return nil, ReasonShape
		}
	}
	root, err := openai.ParseObject(response)
	if err != nil {
		return nil, ReasonShape
	}
	switch root.Get("stop_reason").Str {
	case "end_turn", "stop_sequence":
	default:
		return nil, ReasonFinish
	}
	var text strings.Builder
	for _, block := range root.Get("content").Array() {
		if !plainText(block) {
			return nil, ReasonShape
		}
		text.WriteString(block.Get("text").Str)
	}
	if text.String() == "" {
		return nil, ReasonShape
	}
	return without(response, "id"), ""
}

// plainText reports whether a block is text and nothing more, such as text with citations.
func plainText(block gjson.Result) bool {
	plain := block.Get("type").Str == "text"
	block.ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "type", "text":
		default:
			plain = plain && value.Type == gjson.Null
		}
		return plain
	})
	return plain
}

// assembleMessage puts the events of a stream together as the unary response it would have been. It is not ok when they
// hold anything but text.
func assembleMessage(said *Said) (response []byte, ok bool) {
	var start, stop, usage gjson.Result
	var blocks []string
	for _, data := range said.Events {
		event, err := openai.ParseObject(data)
		if err != nil {
			return nil, false
		}
		switch event.Get("type").Str {
		case "message_start":
			start = event.Get("message")
		case "content_block_start":
			if block := event.Get("content_block"); !plainText(block) || int(event.Get("index").Num) != len(blocks) {
				return nil, false
			}
			blocks = append(blocks, event.Get("content_block.text").Str)
		case "content_block_delta":
			at := int(event.Get("index").Num)
			if event.Get("delta.type").Str != "text_delta" || at != len(blocks)-1 {
				return nil, false
			}
			blocks[at] += event.Get("delta.text").Str
		case "message_delta":
			stop, usage = event.Get("delta"), event.Get("usage")
		}
	}
	if !start.IsObject() || !stop.IsObject() {
		return nil, false
	}
	return encodeMessage(start, stop, usage, blocks), true
}

func encodeMessage(start, stop, usage gjson.Result, blocks []string) []byte {
	b := []byte(`{"type":"message","role":"assistant","model":` + member(start, "model", `""`) + `,"content":[`)
	for i, text := range blocks {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"type":"text","text":`+quote(text)+`}`...)
	}
	b = append(b, `],"stop_reason":`+member(stop, "stop_reason", "null")+`,"stop_sequence":`+member(stop, "stop_sequence", "null")+`,"usage":{`...)
	// The counts at the end hold; what only the beginning tells is kept.
	comma := false
	add := func(name, value gjson.Result) {
		if comma {
			b = append(b, ',')
		}
		b, comma = append(append(append(b, name.Raw...), ':'), value.Raw...), true
	}
	start.Get("usage").ForEach(func(name, value gjson.Result) bool {
		if !usage.Get(gjson.Escape(name.Str)).Exists() {
			add(name, value)
		}
		return true
	})
	usage.ForEach(func(name, value gjson.Result) bool {
		add(name, value)
		return true
	})
	return append(b, "}}"...)
}

// message streams an answer of the messages dialect.
func (r *Replay) message(e *schemas.CacheEntry) ([]byte, error) {
	root := gjson.ParseBytes(e.Answer)
	blocks := root.Get("content").Array()
	if len(blocks) == 0 {
		return nil, fmt.Errorf("replay an entry: it has no content")
	}
	usage := member(root, "usage", "{}")
	b := append(make([]byte, 0, 4*len(e.Answer)), `{"type":"message_start","message":{"id":"`+r.id("msg_")+
		`","type":"message","role":"assistant","model":`+member(root, "model", `""`)+
		`,"content":[],"stop_reason":null,"stop_sequence":null,"usage":`+usage+`}}`...)
	for i, block := range blocks {
		index := strconv.Itoa(i)
		b = append(b, "\n"+`{"type":"content_block_start","index":`+index+`,"content_block":{"type":"text","text":""}}`...)
		for piece := range pieces(block.Get("text").Str) {
			b = append(b, "\n"+`{"type":"content_block_delta","index":`+index+`,"delta":{"type":"text_delta","text":`+quote(piece)+`}}`...)
		}
		b = append(b, "\n"+`{"type":"content_block_stop","index":`+index+`}`...)
	}
	b = append(b, "\n"+`{"type":"message_delta","delta":{"stop_reason":`+member(root, "stop_reason", "null")+
		`,"stop_sequence":`+member(root, "stop_sequence", "null")+`},"usage":`+usage+`}`...)
	return append(b, "\n"+`{"type":"message_stop"}`...), nil
}
