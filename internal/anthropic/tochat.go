package anthropic

import (
	"github.com/tidwall/gjson"
)

// ToChat turns the body of a messages request, which must have been validated, into that of a chat request. Members that
// neither dialect knows travel on as they are. What only an Anthropic server can do is left out when the answer means the
// same without it (cache_control, thinking and its signatures, metadata but for user_id) and refused otherwise. The
// error is a [schemas.Error].
func ToChat(body []byte) ([]byte, error) {
	root := gjson.ParseBytes(body)
	w := &chatWriter{}
	w.out = append(make([]byte, 0, len(body)+len(body)/8+256), '{')
	w.messages(root)
	root.ForEach(func(key, value gjson.Result) bool {
		if w.bad == nil && given(value) {
			w.member(key.Str, value)
		}
		return w.bad == nil
	})
	if w.bad != nil {
		return nil, w.bad
	}
	return append(w.out, '}'), nil
}

// chatWriter writes the members of a chat request.
type chatWriter struct {
	object
	bad   error
	parts []byte // scratch
}

func (w *chatWriter) member(name string, value gjson.Result) {
	switch name {
	case "messages", "system": // written first
	case "max_tokens":
		// Not max_completion_tokens: servers that do not know it ignore it and answer without a limit, while those that want
		// it refuse this one and say so.
		w.raw("max_tokens", value.Raw)
	case "stop_sequences":
		if len(value.Array()) > 0 {
			w.raw("stop", line(value.Raw))
		}
	case "metadata":
		if user := value.Get("user_id"); user.Type == gjson.String {
			w.raw("user", user.Raw)
		}
	case "tools":
		w.tools(value)
	case "tool_choice":
		w.toolChoice(value)
	case "output_config":
		w.outputConfig(value)
	case "output_format":
		w.format(value)
	case "mcp_servers":
		if len(value.Array()) > 0 {
			w.bad = unsupported("mcp_servers", "needs an Anthropic server, which this model does not have: connect the tools yourself")
		}
	case "thinking", "cache_control", "container", "context_management", "inference_geo", "speed", "betas":
	default:
		w.raw(name, line(value.Raw))
	}
}

func (w *chatWriter) tools(tools gjson.Result) {
	list := tools.Array()
	if len(list) == 0 {
		return
	}
	w.name("tools")
	w.out = append(w.out, '[')
	for i, tool := range list {
		if kind := tool.Get("type").Str; kind != "" && kind != "custom" {
			w.bad = unsupported(at("tools", i, ".type"), "is "+kind+", a tool of Anthropic servers, which this model does not have: describe it with name and input_schema")
			return
		}
		if i > 0 {
			w.out = append(w.out, ',')
		}
		f := object{out: append(w.out, `{"type":"function","function":{`...)}
		f.text("name", tool.Get("name").Str)
		if d := tool.Get("description"); d.Type == gjson.String {
			f.raw("description", d.Raw)
		}
		if schema := tool.Get("input_schema"); schema.IsObject() {
			f.raw("parameters", line(schema.Raw))
		}
		if strict := tool.Get("strict"); strict.IsBool() {
			f.raw("strict", strict.Raw)
		}
		w.out = append(f.out, "}}"...)
	}
	w.out = append(w.out, ']')
}

func (w *chatWriter) toolChoice(choice gjson.Result) {
	switch kind := choice.Get("type").Str; kind {
	case "auto", "none":
		w.text("tool_choice", kind)
	case "any":
		w.text("tool_choice", "required")
	case "tool":
		w.name("tool_choice")
		w.out = append(appendString(append(w.out, `{"type":"function","function":{"name":`...), choice.Get("name").Str), "}}"...)
	default:
		w.bad = invalid("tool_choice.type", "must be auto, any, tool or none")
		return
	}
	if choice.Get("disable_parallel_tool_use").Bool() {
		w.raw("parallel_tool_calls", "false")
	}
}

func (w *chatWriter) outputConfig(config gjson.Result) {
	switch effort := config.Get("effort").Str; effort {
	case "":
	case "max": // the highest that the other dialect has
		w.text("reasoning_effort", "xhigh")
	default:
		w.text("reasoning_effort", effort)
	}
	if format := config.Get("format"); given(format) {
		w.format(format)
	}
}

func (w *chatWriter) format(format gjson.Result) {
	if format.Get("type").Str != "json_schema" || !format.Get("schema").IsObject() {
		w.bad = unsupported("output_config.format", "must be {\"type\": \"json_schema\", \"schema\": {…}} for this model")
		return
	}
	w.name("response_format")
	w.out = append(w.out, `{"type":"json_schema","json_schema":{"name":"output","strict":true,"schema":`...)
	w.out = append(append(w.out, line(format.Get("schema").Raw)...), "}}"...)
}
