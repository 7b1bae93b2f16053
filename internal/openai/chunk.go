package openai

import (
	"bytes"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Reasons why the data of an event is no chunk.
var (
	ErrNotJSON   = errors.New("not valid JSON")
	ErrNotObject = errors.New("not a JSON object")
	ErrTooDeep   = errors.New("JSON nested too deeply")
)

// maxChunkDepth keeps a hostile upstream from exhausting the stack of whoever reads the answer recursively.
const maxChunkDepth = 1000

// Chunk is what the pipeline needs to know of a chat.completion.chunk, or of a whole response. Its strings do not share
// memory with the data they were read from, so a Chunk outlives it, until the next Peek.
type Chunk struct {
	ID      string
	Object  string
	Model   string
	Choices []Choice
	Usage   string // the usage object as JSON; empty when absent or null
	Error   string // the error member as JSON, or the whole document when it is itself an error object
	Prompt  string // the token ids of the prompt as a JSON array; empty when absent or null

	hasChoices bool
	id         member
	created    member
	model      member
	error      member
	choices    member
	usage      member
	prompt     member
	pattern    pattern
}

// Choice is one element of choices, of a chunk (its delta), a response (its message) or a text completion.
type Choice struct {
	Index        int
	Role         string
	Content      string
	Reasoning    string
	Refusal      string
	ToolCalls    string // JSON array, empty when absent
	FunctionCall string // JSON object, empty when absent
	LogProbs     string // JSON object, empty when absent or null
	Finish       string // empty while the choice goes on
	TokenIDs     string // what it was decoded from as a JSON array; empty when absent or null

	reasoningKey string
	text         bool // of a text completion: Content is its text
	tokens       member
	other        bool // the delta has members with a value that have no field here
}

// member is where a member of the top-level object stands in the data.
type member struct {
	key, value, end int // offsets of the name's quote, of the value, and after the value; end 0 = absent
	raw             string
}

func memberOf(key, value gjson.Result) member {
	return member{key: key.Index, value: value.Index, end: value.Index + len(value.Raw), raw: value.Raw}
}

func (m member) present() bool { return m.end > 0 }

// Peek reads data, which must be one JSON object, into c. It replaces all that c held.
func (c *Chunk) Peek(data []byte) error {
	if c.repeats(data) {
		return nil
	}
	c.pattern.forget()
	*c = Chunk{Choices: c.Choices[:0], pattern: c.pattern}
	root, err := ParseObject(data)
	if err != nil {
		return err
	}
	root.ForEach(func(key, value gjson.Result) bool {
		m := memberOf(key, value)
		switch key.Str {
		case "id":
			c.ID, c.id = value.Str, m
		case "object":
			c.Object = value.Str
		case "created":
			c.created = m
		case "model":
			c.Model, c.model = value.Str, m
		case "choices":
			c.choices, c.hasChoices = m, value.IsArray()
			c.peekChoices(value)
		case "usage":
			if c.usage = m; value.IsObject() {
				c.Usage = value.Raw
			}
		case "prompt_token_ids":
			if c.prompt = m; value.IsArray() {
				c.Prompt = value.Raw
			}
		case "error":
			c.error = m
			if !empty(value) {
				c.Error = value.Raw
			}
		default:
			c.pattern.ignore(value)
		}
		return true
	})
	if c.Object == "error" && c.Error == "" {
		c.Error = root.Raw
	}
	c.pattern.learn(data, c)
	return nil
}

// ParseObject reads data from a model server, which must be one JSON object that does not nest without end.
func ParseObject(data []byte) (gjson.Result, error) {
	if tooDeep(data) {
		return gjson.Result{}, ErrTooDeep
	}
	if !schemas.ValidMember(data) {
		return gjson.Result{}, ErrNotJSON
	}
	root := gjson.ParseBytes(data)
	if !root.IsObject() {
		return gjson.Result{}, ErrNotObject
	}
	return root, nil
}

func (c *Chunk) peekChoices(choices gjson.Result) {
	if !c.hasChoices {
		return
	}
	choices.ForEach(func(_, value gjson.Result) bool {
		c.Choices = append(c.Choices, Choice{Index: len(c.Choices)})
		choice := &c.Choices[len(c.Choices)-1]
		value.ForEach(func(key, value gjson.Result) bool {
			switch key.Str {
			case "index":
				choice.Index = int(value.Num)
			case "delta", "message":
				c.peekDelta(choice, value)
			case "text":
				choice.Content, choice.text = value.Str, true
				c.pattern.note(value)
			case "finish_reason":
				choice.Finish = value.Str
			case "logprobs":
				if value.IsObject() {
					choice.LogProbs = value.Raw
				}
			case "token_ids":
				if choice.tokens = memberOf(key, value); value.IsArray() {
					choice.TokenIDs = value.Raw
				}
			case "prompt_token_ids": // of a text completion
				if c.prompt = memberOf(key, value); value.IsArray() {
					c.Prompt = value.Raw
				}
			}
			return true
		})
		return true
	})
}

func (c *Chunk) peekDelta(choice *Choice, delta gjson.Result) {
	delta.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "role":
			choice.Role = value.Str
		case "content":
			choice.Content = value.Str
			c.pattern.note(value)
		case "refusal":
			choice.Refusal = value.Str
		case "reasoning_content", "reasoning":
			if value.Str != "" && choice.Reasoning == "" {
				choice.Reasoning, choice.reasoningKey = value.Str, key.Str
			}
		case "tool_calls":
			if value.IsArray() && value.Get("0").Exists() { // vLLM writes [] for none
				choice.ToolCalls = value.Raw
			}
		case "function_call":
			if value.IsObject() {
				choice.FunctionCall = value.Raw
			}
		default:
			choice.other = choice.other || !empty(value)
		}
		return true
	})
}

// HasChoices reports whether the member choices is there, if only as an empty array.
func (c *Chunk) HasChoices() bool { return c.hasChoices }

// UsageOnly reports whether the chunk carries usage and nothing of the answer.
func (c *Chunk) UsageOnly() bool { return c.Usage != "" && len(c.Choices) == 0 }

// RoleOnly reports whether the chunk only opens its choices.
func (c *Chunk) RoleOnly() bool {
	for i := range c.Choices {
		if o := &c.Choices[i]; o.Role == "" || o.Finish != "" || o.visible() {
			return false
		}
	}
	return len(c.Choices) > 0 && c.Usage == ""
}

func (o *Choice) visible() bool {
	return o.Content != "" || o.Reasoning != "" || o.Refusal != "" || o.ToolCalls != "" || o.FunctionCall != "" || o.other
}

// ParseUsage decodes Usage; it is nil when there is none or it does not hold integers.
func (c *Chunk) ParseUsage() *schemas.Usage {
	if c.Usage == "" {
		return nil
	}
	usage := &schemas.Usage{}
	if usage.UnmarshalJSON([]byte(c.Usage)) != nil {
		return nil
	}
	return usage
}

// Origin is what ties the chunks of one answer together. Its members are raw JSON, empty when absent.
type Origin struct {
	ID, Created, Model string
}

// Origin of the answer that the chunk belongs to.
func (c *Chunk) Origin() Origin {
	return Origin{ID: c.id.raw, Created: c.created.raw, Model: c.model.raw}
}

// empty reports whether value says nothing: null, false, "" or [].
func empty(value gjson.Result) bool {
	switch value.Raw {
	case "null", "false", `""`, "[]":
		return true
	}
	return value.Raw == ""
}

// tooDeep reports whether data nests deeper than maxChunkDepth. The exact scan is for data with that many brackets.
func tooDeep(data []byte) bool {
	if bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) <= maxChunkDepth {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > maxChunkDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
