package ollama

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Policy is what the operator decides about a server's models, and a request may not.
type Policy struct {
	KeepAlive string // how long a model stays loaded: a duration such as 10m, 0, or -1 for ever; empty is the server's own
	NumCtx    int    // size of the context in tokens; 0 is the server's own
}

// Validate reports what the server would not understand.
func (p Policy) Validate() error {
	switch {
	case p.NumCtx < 0:
		return schemas.Errorf(schemas.CodeInvalidValue, "num_ctx is negative: leave it out for the server's own")
	case p.KeepAlive == "", p.KeepAlive == "-1", p.KeepAlive == "0":
		return nil
	}
	if d, err := time.ParseDuration(p.KeepAlive); err != nil || d < 0 {
		return schemas.Errorf(schemas.CodeInvalidValue, "keep_alive is not a duration: write 10m, 0 to unload at once, or -1 to keep for ever")
	}
	return nil
}

// chatRequest is the body of POST /api/chat.
type chatRequest struct {
	Model       string                     `json:"model"`
	Stream      bool                       `json:"stream"` // the server's default is true
	Messages    []message                  `json:"messages"`
	Tools       json.RawMessage            `json:"tools,omitempty"`
	Format      json.RawMessage            `json:"format,omitempty"`
	Options     map[string]json.RawMessage `json:"options,omitempty"`
	Think       json.RawMessage            `json:"think,omitempty"`
	LogProbs    json.RawMessage            `json:"logprobs,omitempty"`
	TopLogProbs json.RawMessage            `json:"top_logprobs,omitempty"`
	KeepAlive   json.RawMessage            `json:"keep_alive,omitempty"`

	// The server cuts what does not fit its context, unless it is told not to: a caller is told that the request is too long,
	// or that the answer ended for its length, and never given an answer to half a question.
	Truncate bool `json:"truncate"`
	Shift    bool `json:"shift"`
}

// FromChat turns the body of a chat request, which must have been validated, into that of POST /api/chat for a model that
// the server calls by this name. Settings that have no counterpart and do not change the form of the answer (logit_bias,
// user, metadata) are left out; what would change it (n, a named tool, audio) is refused, and so is what only the operator
// may set. The error is a [schemas.Error].
func FromChat(body []byte, model string, policy Policy) ([]byte, error) {
	w := &writer{request: chatRequest{Model: model, KeepAlive: keepAlive(policy.KeepAlive), Options: map[string]json.RawMessage{}}}
	root := gjson.ParseBytes(body)
	root.ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Null {
			w.member(key.Str, value)
		}
		return w.bad == nil
	})
	w.limit(root)
	if w.noTools {
		w.request.Tools = nil
	}
	if policy.NumCtx > 0 {
		w.request.Options["num_ctx"] = json.RawMessage(strconv.Itoa(policy.NumCtx))
	}
	if w.bad == nil {
		w.messages(root.Get("messages"))
	}
	if w.bad != nil {
		return nil, w.bad
	}
	return encode(w.request), nil
}

// writer collects a request.
type writer struct {
	request chatRequest
	noTools bool // may be called
	bad     *schemas.Error
}

func (w *writer) refuse(param, problem string) {
	w.bad = schemas.Errorf(schemas.CodeUnsupported, "%s %s", param, problem).WithParam(param)
}

func (w *writer) member(name string, value gjson.Result) {
	raw := json.RawMessage(value.Raw)
	switch name {
	case "stream":
		w.request.Stream = value.Bool()
	case "temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "repeat_penalty":
		w.request.Options[name] = raw
	case "stop":
		if value.Type == gjson.String {
			raw = json.RawMessage("[" + value.Raw + "]")
		}
		w.request.Options[name] = raw
	case "think":
		w.request.Think = raw
	case "reasoning_effort":
		if w.request.Think == nil { // the server's own member says it more exactly
			w.request.Think = think(value.Str)
		}
	case "logprobs":
		w.request.LogProbs = raw
	case "top_logprobs":
		w.request.TopLogProbs = raw
	case "tools":
		w.tools(value)
	case "tool_choice":
		w.noTools = value.Str == "none"
		if !w.noTools && value.Str != "auto" {
			w.refuse(name, "must be auto or none for this model, which cannot be made to call a tool")
		}
	case "response_format":
		w.format(value)
	default:
		w.check(name, value)
	}
}

// check refuses what would change the form of the answer, and what is not for a request to say.
func (w *writer) check(name string, value gjson.Result) {
	switch name {
	case "n":
		if value.Int() > 1 {
			w.refuse(name, "must be 1: this model gives one answer to a request")
		}
	case "options", "keep_alive":
		w.refuse(name, "cannot be set by a request: use temperature, top_p, top_k, min_p, seed, stop and max_tokens; the operator sets num_ctx and keep_alive")
	case "audio", "functions", "function_call", "web_search_options":
		w.refuse(name, "is not possible with this model: remove it")
	case "modalities":
		if len(value.Array()) != 1 || value.Get("0").Str != "text" {
			w.refuse(name, `must be ["text"] for this model`)
		}
	case "parallel_tool_calls":
		if value.Type == gjson.False {
			w.refuse(name, "must be true for this model, which calls as many tools as it likes: remove it")
		}
	}
}

// limit writes how long the answer may be.
func (w *writer) limit(root gjson.Result) {
	for _, name := range [...]string{"max_completion_tokens", "max_tokens"} {
		if limit := root.Get(name); limit.Type == gjson.Number {
			w.request.Options["num_predict"] = json.RawMessage(limit.Raw)
			return
		}
	}
}

// tools are passed on as they are.
func (w *writer) tools(tools gjson.Result) {
	for i, tool := range tools.Array() {
		if tool.Get("type").Str != "function" {
			w.refuse(at("tools", i, ".type"), "must be function for this model")
			return
		}
	}
	w.request.Tools = json.RawMessage(tools.Raw)
}

func (w *writer) format(format gjson.Result) {
	switch kind := format.Get("type").Str; kind {
	case "text":
	case "json_object":
		w.request.Format = json.RawMessage(`"json"`)
	case "json_schema":
		schema := format.Get("json_schema.schema")
		if !schema.IsObject() {
			w.refuse("response_format.json_schema.schema", "must be a JSON schema for this model")
			return
		}
		w.request.Format = json.RawMessage(schema.Raw)
	default:
		w.refuse("response_format.type", "must be text, json_object or json_schema for this model")
	}
}

// think is an effort in the server's words: it has three, and off.
func think(effort string) json.RawMessage {
	switch effort {
	case "":
		return nil
	case "none":
		return json.RawMessage("false")
	case "minimal", "low":
		return json.RawMessage(`"low"`)
	case "medium":
		return json.RawMessage(`"medium"`)
	}
	return json.RawMessage(`"high"`)
}

// keepAlive is a number of seconds, or a duration.
func keepAlive(s string) json.RawMessage {
	switch s {
	case "":
		return nil
	case "-1", "0":
		return json.RawMessage(s)
	}
	return encode(s)
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and JSON that was validated
	}
	return data
}

func at(name string, i int, member string) string { return name + "[" + strconv.Itoa(i) + "]" + member }
