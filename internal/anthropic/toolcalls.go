package anthropic

import (
	"errors"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// ErrNotResumable says that the events so far hold more than text.
var ErrNotResumable = errors.New("the answer so far holds more than text")

// maxCalls bounds the calls of tools in one answer, and maxWaiting the bytes of those that wait for their turn.
const (
	maxCalls   = 1024
	maxWaiting = openai.MaxEventBytes
)

// toolCall is one call of a tool in the answer.
type toolCall struct {
	index     int // as the model server numbers it
	id, name  string
	begun     bool // its block was opened
	closed    bool
	waiting   []byte // arguments that came before the block was opened
	arguments jsonDepth
}

// toolCalls are those of one answer, in the order in which they came.
type toolCalls struct {
	list    []*toolCall
	open    *toolCall
	waiting int // bytes of all that wait
}

func (c *toolCalls) any() bool { return len(c.list) > 0 }

// find returns the call with the server's index, which is made when it is new.
func (c *toolCalls) find(index int) *toolCall {
	for _, call := range c.list {
		if call.index == index {
			return call
		}
	}
	if len(c.list) >= maxCalls {
		return nil
	}
	call := &toolCall{index: index}
	c.list = append(c.list, call)
	return call
}

// toolDelta is what a chunk adds to one call.
type toolDelta struct {
	index               int
	id, name, arguments string
}

// tools takes the tool_calls of a chunk.
func (t *Translator) tools(deltas string) error {
	var failed error
	position := 0
	gjson.Parse(deltas).ForEach(func(_, delta gjson.Result) bool {
		d := toolDelta{index: position}
		position++
		d.read(delta)
		failed = t.call(&d)
		return failed == nil
	})
	return failed
}

func (d *toolDelta) read(delta gjson.Result) {
	delta.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "index":
			if value.Type == gjson.Number {
				d.index = int(value.Num)
			}
		case "id":
			d.id = value.Str
		case "function":
			value.ForEach(func(key, value gjson.Result) bool {
				switch key.Str {
				case "name":
					d.name = value.Str
				case "arguments":
					d.arguments = value.Str
				}
				return true
			})
		}
		return true
	})
}

func (t *Translator) call(d *toolDelta) error {
	call := t.calls.find(d.index)
	if call == nil {
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server called more than %d tools in one answer; ask for fewer", maxCalls)
	}
	call.id, call.name = first(call.id, d.id), first(call.name, d.name)
	switch {
	case t.calls.open == call:
		t.argue(call, d.arguments)
	case call.closed && d.arguments != "":
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server went on with a call of a tool that it had left; try again")
	case call.closed:
	case t.calls.open != nil && !t.calls.open.arguments.complete():
		if t.calls.waiting += len(d.arguments); t.calls.waiting > maxWaiting {
			return schemas.Errorf(schemas.CodeUpstreamError, "the model server mixed the calls of several tools with more than %d MiB; ask for fewer", maxWaiting>>20)
		}
		call.waiting = append(call.waiting, d.arguments...)
	default:
		t.beginCall(call)
		t.argue(call, d.arguments)
	}
	t.nextCalls(false)
	return nil
}

// argue adds to the arguments of the open call.
func (t *Translator) argue(call *toolCall, arguments string) {
	if arguments == "" {
		return
	}
	call.arguments.add(arguments)
	t.said++
	t.delta(inputDelta, "partial_json", arguments)
}

func (t *Translator) beginCall(call *toolCall) {
	t.leaveCall()
	t.closeBlock()
	if call.id == "" {
		call.id = "toolu_" + t.ID + "_" + strconv.Itoa(call.index)
	}
	call.begun, t.calls.open = true, call
	t.openBlock(toolBlock, call)
	t.calls.waiting -= len(call.waiting)
	t.argue(call, string(call.waiting))
	call.waiting = nil
}

func (t *Translator) leaveCall() {
	if t.calls.open != nil {
		t.calls.open.closed, t.calls.open = true, nil
	}
}

// nextCalls lets those that wait follow the open one once it is complete, or at any rate when nothing more will come.
func (t *Translator) nextCalls(last bool) {
	for _, call := range t.calls.list {
		open := t.calls.open
		if call.begun {
			continue
		}
		if open != nil && !last && !open.arguments.complete() {
			return
		}
		t.beginCall(call)
	}
}

// finishCalls opens every call that waits, and leaves the last one.
func (t *Translator) finishCalls() {
	t.nextCalls(true)
	t.leaveCall()
}

// jsonDepth follows a JSON object that comes in pieces, to tell when it has closed.
type jsonDepth struct {
	depth           int
	begun           bool
	quoted, escaped bool
}

func (d *jsonDepth) complete() bool { return d.begun && d.depth == 0 }

func (d *jsonDepth) add(piece string) {
	for i := range len(piece) {
		switch c := piece[i]; {
		case d.escaped:
			d.escaped = false
		case d.quoted && c == '\\':
			d.escaped = true
		case c == '"':
			d.quoted = !d.quoted
		case d.quoted:
		case c == '{' || c == '[':
			d.depth, d.begun = d.depth+1, true
		case c == '}' || c == ']':
			d.depth--
		}
	}
}
