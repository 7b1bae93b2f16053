package anthropic

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// ChatPolicy is what a server needs to know when a chat request is put to it.
type ChatPolicy struct {
	MaxTokens int    // for a request that sets no limit, which the dialect demands
	Version   string // of the dialect; without sampling parameters from Version2026 on
}

// ToMessages turns the body of a chat request, which must have been validated, into that of a messages request. Members
// of the dialect itself that the caller put into the chat request (thinking, top_k, cache_control) travel on; settings
// of sampling that have no counterpart (seed, penalties, logit_bias) are left out; what would change the form of the
// answer (n, logprobs, audio) is refused. The error is a [schemas.Error].
func ToMessages(body []byte, policy ChatPolicy) ([]byte, error) {
	root := gjson.ParseBytes(body)
	w := &messagesWriter{policy: policy}
	w.out = append(make([]byte, 0, len(body)+len(body)/8+256), '{')
	w.limit(root)
	root.ForEach(func(key, value gjson.Result) bool {
		if w.bad == nil && given(value) {
			w.member(key.Str, value)
		}
		return w.bad == nil
	})
	w.toolChoice(root)
	w.config(root)
	if w.bad == nil {
		w.messages(root.Get("messages"))
	}
	if w.bad != nil {
		return nil, w.bad
	}
	return append(w.out, '}'), nil
}

// messagesWriter writes the members of a messages request.
type messagesWriter struct {
	object
	policy ChatPolicy
	user   bool // metadata is written
	bad    error
}

func (w *messagesWriter) limit(root gjson.Result) {
	limit := root.Get("max_completion_tokens")
	if !given(limit) {
		limit = root.Get("max_tokens")
	}
	if given(limit) {
		w.raw("max_tokens", limit.Raw)
		return
	}
	w.number("max_tokens", int64(w.policy.MaxTokens))
}

func (w *messagesWriter) member(name string, value gjson.Result) {
	switch name {
	case "model", "stream", "thinking", "cache_control", "container", "context_management", "mcp_servers", "inference_geo":
		w.raw(name, value.Raw)
	case "temperature":
		if w.samples() { // this dialect ends at 1
			w.raw(name, strconv.FormatFloat(min(max(value.Num, 0), 1), 'g', -1, 64))
		}
	case "top_p", "top_k":
		if w.samples() {
			w.raw(name, value.Raw)
		}
	case "stop":
		w.stop(value)
	case "user", "safety_identifier":
		if value.Type == gjson.String && !w.user { // the newer name of the same
			w.user = true
			w.name("metadata")
			w.out = append(append(append(w.out, `{"user_id":`...), value.Raw...), '}')
		}
	case "tools":
		w.tools(value)
	case "n":
		if value.Int() > 1 {
			w.bad = unsupported(name, "must be 1: this model gives one answer to a request")
		}
	case "logprobs", "audio", "functions", "function_call", "web_search_options":
		if value.Type != gjson.False {
			w.bad = unsupported(name, "is not possible with this model: remove it")
		}
	case "modalities":
		if len(value.Array()) != 1 || value.Get("0").Str != "text" {
			w.bad = unsupported(name, `must be ["text"] for this model`)
		}
	}
}

func (w *messagesWriter) samples() bool { return w.policy.Version < Version2026 }

func (w *messagesWriter) stop(value gjson.Result) {
	w.name("stop_sequences")
	if value.Type == gjson.String {
		w.out = append(append(append(w.out, '['), value.Raw...), ']')
		return
	}
	w.out = append(w.out, line(value.Raw)...)
}

func (w *messagesWriter) tools(tools gjson.Result) {
	list := tools.Array()
	if len(list) == 0 {
		return
	}
	w.name("tools")
	w.out = append(w.out, '[')
	for i, tool := range list {
		function := tool.Get("function")
		if tool.Get("type").Str != "function" || !function.IsObject() {
			w.bad = unsupported(at("tools", i, ".type"), "must be function for this model")
			return
		}
		if i > 0 {
			w.out = append(w.out, ',')
		}
		o := object{out: append(w.out, '{')}
		o.text("name", function.Get("name").Str)
		if d := function.Get("description"); d.Type == gjson.String {
			o.raw("description", d.Raw)
		}
		schema := `{"type":"object"}`
		if given := function.Get("parameters"); given.IsObject() && given.Get("type").Exists() {
			schema = given.Raw
		}
		o.raw("input_schema", schema)
		if strict := function.Get("strict"); strict.Type == gjson.True {
			o.raw("strict", "true")
		}
		if cache := tool.Get("cache_control"); cache.IsObject() {
			o.raw("cache_control", cache.Raw)
		}
		w.out = append(o.out, '}')
	}
	w.out = append(w.out, ']')
}

// toolChoice writes which tools may be called and whether several at once.
func (w *messagesWriter) toolChoice(root gjson.Result) {
	choice, parallel := root.Get("tool_choice"), root.Get("parallel_tool_calls")
	if len(root.Get("tools").Array()) == 0 || !given(choice) && parallel.Type != gjson.False {
		return
	}
	kind, name := "auto", ""
	switch {
	case !given(choice), choice.Str == "auto":
	case choice.Str == "required":
		kind = "any"
	case choice.Str == "none":
		kind = "none"
	case choice.Get("type").Str == "function":
		kind, name = "tool", choice.Get("function.name").Str
	default:
		w.bad = unsupported("tool_choice", "must be auto, required, none or a function for this model")
		return
	}
	w.name("tool_choice")
	o := object{out: append(w.out, '{')}
	o.text("type", kind)
	if name != "" {
		o.text("name", name)
	}
	if parallel.Type == gjson.False && kind != "none" {
		o.raw("disable_parallel_tool_use", "true")
	}
	w.out = append(o.out, '}')
}

// config writes the effort and the form of the answer.
func (w *messagesWriter) config(root gjson.Result) {
	if own := root.Get("output_config"); own.IsObject() {
		w.raw("output_config", own.Raw)
		return
	}
	effort := effortOf(root.Get("reasoning_effort").Str)
	format := root.Get("response_format")
	kind := format.Get("type").Str
	if kind != "" && kind != "text" && kind != "json_schema" {
		w.bad = unsupported("response_format.type", "must be text or json_schema for this model: say which JSON you want with a schema")
		return
	}
	if effort == "" && kind != "json_schema" {
		return
	}
	w.name("output_config")
	o := object{out: append(w.out, '{')}
	if effort != "" {
		o.text("effort", effort)
	}
	if kind == "json_schema" {
		o.raw("format", `{"type":"json_schema","schema":`+first(format.Get("json_schema.schema").Raw, "{}")+"}")
	}
	w.out = append(o.out, '}')
}

func effortOf(effort string) string {
	switch effort {
	case "none":
		return ""
	case "minimal":
		return "low"
	}
	return effort
}
