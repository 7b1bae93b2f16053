package openai

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Answer puts a streamed answer together as the unary response it would have been. The zero value is empty. It is owned
// by one goroutine.
type Answer struct {
	Endings

	id, created, model string // raw JSON of the first chunk that has them
	text               bool   // of a text completion
	usage              string
	choices            []*choiceAnswer
}

type choiceAnswer struct {
	index        int
	role         string
	content      []byte
	hasContent   bool
	refusal      []byte
	reasoning    []byte
	reasoningKey string
	logProbs     []logProb
	tools        []*toolAnswer
	function     toolAnswer // the older function_call
}

// logProb is a list among the log probabilities, such as content, put together.
type logProb struct {
	name     string
	elements []byte
}

type toolAnswer struct {
	index         int
	id, kind      string
	name          string
	arguments     []byte
	hasDefinition bool
}

// Add notes the next chunk.
func (a *Answer) Add(c *Chunk) {
	a.Endings.Add(c)
	a.id, a.created, a.model = first(a.id, c.id.raw), first(a.created, c.created.raw), first(a.model, c.model.raw)
	if c.Usage != "" {
		a.usage = c.Usage
	}
	for i := range c.Choices {
		a.text = a.text || c.Choices[i].text
		a.choice(c.Choices[i].Index).add(&c.Choices[i])
	}
}

// Assemble puts the events of a stored stream together. The usage, if not nil, stands in for a usage chunk that was not
// part of the stream.
func Assemble(events iter.Seq2[uint64, []byte], usage *schemas.Usage) ([]byte, error) {
	var answer Answer
	var chunk Chunk
	for index, event := range events {
		if err := chunk.Peek(event); err != nil {
			return nil, fmt.Errorf("assemble answer: event %d: %w", index, err)
		}
		answer.Add(&chunk)
	}
	return answer.Encode(usage), nil
}

// Usage that the upstream reported, or nil.
func (a *Answer) Usage() *schemas.Usage { return (&Chunk{Usage: a.usage}).ParseUsage() }

// Encode writes the chat.completion or text_completion object. The usage stands in when the chunks held none; nil leaves it out.
func (a *Answer) Encode(usage *schemas.Usage) []byte {
	b := append([]byte(`{"id":`), first(a.id, `""`)...)
	object := "chat.completion"
	if a.text {
		object = "text_completion"
	}
	b = append(append(append(b, `,"object":"`...), object...), `","created":`...)
	b = append(b, first(a.created, "0")...)
	b = append(b, `,"model":`...)
	b = append(b, first(a.model, `""`)...)
	b = append(b, `,"choices":[`...)
	slices.SortFunc(a.choices, func(x, y *choiceAnswer) int { return x.index - y.index })
	for i, choice := range a.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = choice.append(b, a.text)
		b = appendReason(b, a.reason(choice.index))
	}
	b = append(b, ']')
	if text := a.usageText(usage); text != "" {
		b = append(append(b, `,"usage":`...), text...)
	}
	return append(b, '}')
}

func (a *Answer) usageText(usage *schemas.Usage) string {
	if a.usage != "" || usage == nil {
		return a.usage
	}
	data, err := json.Marshal(usage)
	if err != nil {
		return "" // details that are not JSON
	}
	return string(data)
}

func (a *Answer) reason(index int) string {
	if index < 0 || index >= len(a.reasons) {
		return ""
	}
	return a.reasons[index]
}

func (a *Answer) choice(index int) *choiceAnswer {
	for _, choice := range a.choices {
		if choice.index == index {
			return choice
		}
	}
	choice := &choiceAnswer{index: index}
	if len(a.choices) < maxChoices {
		a.choices = append(a.choices, choice)
	}
	return choice
}

func (a *choiceAnswer) add(o *Choice) {
	a.role = first(a.role, o.Role)
	a.content, a.hasContent = append(a.content, o.Content...), a.hasContent || o.Content != ""
	a.refusal = append(a.refusal, o.Refusal...)
	if o.Reasoning != "" {
		a.reasoning, a.reasoningKey = append(a.reasoning, o.Reasoning...), o.reasoningKey
	}
	if o.FunctionCall != "" {
		a.function.add(gjson.Parse(o.FunctionCall), "arguments")
	}
	if o.LogProbs != "" {
		gjson.Parse(o.LogProbs).ForEach(func(name, list gjson.Result) bool {
			a.addLogProbs(name.Str, list)
			return true
		})
	}
	if o.ToolCalls != "" {
		gjson.Parse(o.ToolCalls).ForEach(func(key, call gjson.Result) bool {
			a.addTool(int(key.Num), call)
			return true
		})
	}
}

func (a *choiceAnswer) addLogProbs(name string, list gjson.Result) {
	if !list.IsArray() {
		return
	}
	at := slices.IndexFunc(a.logProbs, func(l logProb) bool { return l.name == name })
	if at < 0 {
		at = len(a.logProbs)
		a.logProbs = append(a.logProbs, logProb{name: name})
	}
	l := &a.logProbs[at]
	elements := strings.TrimSpace(list.Raw[1 : len(list.Raw)-1])
	if elements != "" && len(l.elements) > 0 {
		l.elements = append(l.elements, ',')
	}
	l.elements = append(l.elements, elements...)
}

func (a *choiceAnswer) addTool(position int, call gjson.Result) {
	index := position
	if given := call.Get("index"); given.Type == gjson.Number {
		index = int(given.Num)
	}
	at := slices.IndexFunc(a.tools, func(t *toolAnswer) bool { return t.index == index })
	if at < 0 {
		at = len(a.tools)
		a.tools = append(a.tools, &toolAnswer{index: index})
	}
	tool := a.tools[at]
	tool.id, tool.kind = first(tool.id, call.Get("id").Str), first(tool.kind, call.Get("type").Str)
	if custom := call.Get("custom"); custom.IsObject() {
		tool.add(custom, "input")
		return
	}
	tool.add(call.Get("function"), "arguments")
}

func (t *toolAnswer) add(definition gjson.Result, arguments string) {
	if !definition.IsObject() {
		return
	}
	t.hasDefinition = true
	t.name = first(t.name, definition.Get("name").Str)
	t.arguments = append(t.arguments, definition.Get(arguments).Str...)
}

// append writes the choice up to its finish_reason.
func (a *choiceAnswer) append(b []byte, text bool) []byte {
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(a.index), 10)
	if text {
		b = appendString(append(b, `,"text":`...), a.content)
	} else {
		b = a.appendMessage(append(b, `,"message":`...))
	}
	return a.appendLogProbs(append(b, `,"logprobs":`...))
}

func appendReason(b []byte, reason string) []byte {
	b = append(b, `,"finish_reason":`...)
	if reason == "" {
		return append(b, "null}"...)
	}
	return append(appendString(b, reason), '}')
}

func (a *choiceAnswer) appendLogProbs(b []byte) []byte {
	separator := byte('{')
	for _, l := range a.logProbs {
		if len(l.elements) == 0 {
			continue
		}
		b = appendString(append(b, separator), l.name)
		b = append(append(append(b, ":["...), l.elements...), ']')
		separator = ','
	}
	if separator == '{' {
		return append(b, "null"...)
	}
	return append(b, '}')
}

func (a *choiceAnswer) appendMessage(b []byte) []byte {
	b = append(b, `{"role":`...)
	b = appendString(b, first(a.role, "assistant"))
	b = append(b, `,"content":`...)
	if !a.hasContent && (len(a.tools) > 0 || a.function.hasDefinition || len(a.refusal) > 0) {
		b = append(b, "null"...)
	} else {
		b = appendString(b, a.content)
	}
	if len(a.reasoning) > 0 {
		b = appendString(append(b, ','), a.reasoningKey)
		b = appendString(append(b, ':'), a.reasoning)
	}
	b = append(b, `,"refusal":`...)
	if len(a.refusal) > 0 {
		b = appendString(b, a.refusal)
	} else {
		b = append(b, "null"...)
	}
	return append(a.appendTools(b), '}')
}

func (a *choiceAnswer) appendTools(b []byte) []byte {
	if a.function.hasDefinition {
		b = a.function.appendDefinition(append(b, `,"function_call":`...), "arguments")
	}
	if len(a.tools) == 0 {
		return b
	}
	slices.SortFunc(a.tools, func(x, y *toolAnswer) int { return x.index - y.index })
	b = append(b, `,"tool_calls":[`...)
	for i, tool := range a.tools {
		if i > 0 {
			b = append(b, ',')
		}
		kind, arguments := first(tool.kind, "function"), "arguments"
		if kind == "custom" {
			arguments = "input"
		}
		b = appendString(append(b, `{"id":`...), tool.id)
		b = appendString(append(b, `,"type":`...), kind)
		b = appendString(append(b, ','), kind)
		b = append(tool.appendDefinition(append(b, ':'), arguments), '}')
	}
	return append(b, ']')
}

func (t *toolAnswer) appendDefinition(b []byte, arguments string) []byte {
	b = appendString(append(b, `{"name":`...), t.name)
	b = appendString(append(b, ','), arguments)
	b = appendString(append(b, ':'), t.arguments)
	return append(b, '}')
}

// first returns a, or b when a is empty.
func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
