package responses

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// ToChat gives the chat request that asks a model server the same as a Responses request whose body
// [openai.ParseRequest] accepts. It is always streamed, with usage, whatever the caller's own stream says, so that the
// log of a response holds chunks. The error is a [schemas.Error] in the words of the Responses API.
func ToChat(r *openai.Request, policy openai.Policy) (*openai.Request, error) {
	body, err := convert(r.Body)
	if err != nil {
		return nil, err
	}
	return openai.ParseRequest(schemas.OpChat, body, policy)
}

// converter makes one chat body.
type converter struct {
	out []byte // members, each with a comma before it

	input, instructions gjson.Result
	choice, parallel    gjson.Result
	tools               int
	logProbs, top       string // what of log probabilities is wanted
}

func convert(body []byte) ([]byte, error) {
	c := converter{out: make([]byte, 0, len(body)+128)}
	var err error
	gjson.ParseBytes(body).ForEach(func(name, value gjson.Result) bool {
		err = c.member(name, value)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	if err := c.toolChoice(); err != nil {
		return nil, err
	}
	if c.logProbs != "" {
		c.add("logprobs", c.logProbs)
	}
	if c.top != "" {
		c.add("top_logprobs", c.top)
	}
	if err := c.messages(); err != nil {
		return nil, err
	}
	c.add("stream", "true")
	c.add("stream_options", `{"include_usage":true}`)
	c.out[0] = '{' // instead of the first comma
	return append(c.out, '}'), nil
}

func (c *converter) add(name, raw string) { c.out = appendMember(c.out, name, raw) }

// member converts one member of the body. What has no meaning of its own here travels on untouched.
func (c *converter) member(name, value gjson.Result) error {
	switch name.Str {
	case "input":
		c.input = value
	case "instructions":
		c.instructions = value
	case "stream", "stream_options", "background", "store", "max_tool_calls", memberContinues:
		// They are for the door. Stored is what Weir stores, so a model server is not asked to do it as well.
	case "metadata": // likewise, and repeated in the response, where SDKs insist on its type
		return metadata(value)
	case "previous_response_id":
		if given(value) {
			return unsupported("previous_response_id", "is resolved where HTTP requests arrive: send the whole conversation as input")
		}
	case "conversation", "prompt":
		if given(value) {
			return unsupported(name.Str, "is not kept here: send the conversation as input, or name a previous_response_id")
		}
	case "tools":
		return c.addTools(value)
	case "tool_choice":
		c.choice = value
	case "parallel_tool_calls":
		if given(value) && !value.IsBool() {
			return invalid("parallel_tool_calls", "must be true or false")
		}
		c.parallel = value
	case "text":
		return c.text(value)
	case "reasoning":
		return c.reasoning(value)
	case "max_output_tokens":
		return c.maxTokens(value)
	case "truncation":
		if given(value) && value.Str != "disabled" {
			return unsupported("truncation", "can only be \"disabled\": nothing is dropped from a conversation; shorten the input")
		}
	case "include":
		return c.include(value)
	case "top_logprobs":
		if given(value) && value.Raw != "0" {
			c.logProbs, c.top = "true", value.Raw
		}
	default:
		if instead := ofChat(name.Str); instead != "" {
			return unsupported(name.Str, "is a member of chat completions; %s", instead)
		}
		c.out = append(append(append(append(c.out, ','), name.Raw...), ':'), value.Raw...)
	}
	return nil
}

func metadata(value gjson.Result) error {
	if !given(value) {
		return nil
	}
	texts := value.IsObject()
	value.ForEach(func(_, text gjson.Result) bool {
		texts = texts && text.Type == gjson.String
		return texts
	})
	if !texts {
		return invalid("metadata", "must be an object whose values are strings")
	}
	return nil
}

// ofChat says what to use instead of a member that means something in a chat body and nothing in this one. Passed on, it
// would say the same thing twice, or ask for what a response has no place for.
func ofChat(name string) string {
	switch name {
	case "messages":
		return "send input"
	case "response_format":
		return "use text.format"
	case "reasoning_effort":
		return "use reasoning.effort"
	case "verbosity":
		return "use text.verbosity"
	case "max_tokens", "max_completion_tokens":
		return "use max_output_tokens"
	case "logprobs":
		return "use top_logprobs"
	case "functions", "function_call":
		return "use tools and tool_choice"
	case "n", "modalities", "audio", "web_search_options":
		return "a response has no place for it: leave it out"
	}
	return ""
}

func (c *converter) maxTokens(value gjson.Result) error {
	if !given(value) {
		return nil
	}
	if value.Type != gjson.Number || strings.Trim(value.Raw, "0123456789") != "" || strings.Trim(value.Raw, "0") == "" {
		return invalid("max_output_tokens", "must be an integer of at least 1; leave it out for no limit")
	}
	c.add("max_completion_tokens", value.Raw)
	return nil
}

func (c *converter) reasoning(value gjson.Result) error {
	if given(value) && !value.IsObject() {
		return invalid("reasoning", "must be an object such as {\"effort\": \"low\"}")
	}
	if effort := value.Get("effort"); given(effort) {
		c.add("reasoning_effort", effort.Raw)
	}
	return nil
}

func (c *converter) text(value gjson.Result) error {
	if given(value) && !value.IsObject() {
		return invalid("text", "must be an object such as {\"format\": {\"type\": \"text\"}}")
	}
	if verbosity := value.Get("verbosity"); given(verbosity) {
		c.add("verbosity", verbosity.Raw)
	}
	format := value.Get("format")
	switch kind := format.Get("type").Str; {
	case !given(format), kind == "text":
	case kind == "json_object":
		c.add("response_format", `{"type":"json_object"}`)
	case kind == "json_schema":
		b := append([]byte(`{"type":"json_schema","json_schema":`), without(format, "type")...)
		c.add("response_format", string(append(b, '}')))
	default:
		return invalid("text.format.type", "must be \"text\", \"json_object\" or \"json_schema\"")
	}
	return nil
}

// include accepts what a response may be asked to show. Reasoning is never encrypted here and hosted tools do not exist, so
// that there is nothing to show of them is the whole answer.
func (c *converter) include(value gjson.Result) (err error) {
	if !given(value) {
		return nil
	}
	if !value.IsArray() {
		return invalid("include", "must be an array of names")
	}
	i := 0
	value.ForEach(func(_, name gjson.Result) bool {
		switch name.Str {
		case "message.output_text.logprobs":
			c.logProbs = "true"
		case "reasoning.encrypted_content", "message.input_image.image_url", "code_interpreter_call.outputs", "file_search_call.results",
			"web_search_call.results", "web_search_call.action.sources", "computer_call_output.output.image_url":
		default:
			err = invalid(element("include", i), "names nothing that a response can include; remove it")
		}
		i++
		return err == nil
	})
	return err
}

// without is an object less one of its members.
func without(object gjson.Result, name string) []byte {
	b := []byte{'{'}
	object.ForEach(func(key, value gjson.Result) bool {
		if key.Str == name {
			return true
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, key.Raw...), ':'), value.Raw...)
		return true
	})
	return append(b, '}')
}
