package triton

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"
)

// sampled are the members of a body that are vLLM's sampling parameters under the same name.
func sampled(name string) bool {
	switch name {
	case "temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty",
		"min_tokens", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids",
		"include_stop_str_in_output", "bad_words":
		return true
	}
	return false
}

// refused says why a member with this value cannot be obeyed, or nothing. What does not change the answer is left out.
func refused(name string, value gjson.Result) string {
	switch name {
	case "tools", "functions":
		if len(value.Array()) > 0 {
			return "needs a model server with tools, which Triton's vLLM backend is not"
		}
	case "response_format":
		if kind := value.Get("type").Str; kind != "" && kind != "text" {
			return "of type " + strconv.Quote(kind) + " is not something that the model server can be asked for"
		}
	case "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "logit_bias", "web_search_options", "audio":
		if value.Raw != "{}" {
			return "is not something that the model server can be asked for"
		}
	case "n", "best_of":
		if value.Int() > 1 {
			return "is more than 1: the model server gives one answer"
		}
	case "logprobs", "top_logprobs", "prompt_logprobs":
		if value.Type != gjson.False {
			return "is not something that the model server tells"
		}
	case "echo":
		if value.Bool() {
			return "is not something that the model server does: put the prompt before the answer yourself"
		}
	case "suffix":
		if value.Str != "" {
			return "is not something that the model can be given"
		}
	case "modalities":
		for _, kind := range value.Array() {
			if kind.Str != "text" {
				return "asks for something other than text"
			}
		}
	}
	return ""
}

// sampling are the sampling parameters of a validated body, as JSON.
func sampling(body gjson.Result, maxTokens int) (text []byte, err error) {
	text = []byte{'{'}
	add := func(name, value string) {
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), name...), '"', ':')
		text = append(text, value...)
	}
	limit := strconv.Itoa(maxTokens)
	body.ForEach(func(key, value gjson.Result) bool {
		if value.Type == gjson.Null {
			return true
		}
		switch {
		case key.Str == "max_tokens" && !body.Get("max_completion_tokens").Exists(), key.Str == "max_completion_tokens":
			limit = value.Raw
		case key.Str == "stop" && value.Type == gjson.String:
			add("stop", "["+value.Raw+"]")
		case key.Str == "stop" && len(value.Array()) > 0, sampled(key.Str):
			add(key.Str, value.Raw)
		default:
			if why := refused(key.Str, value); why != "" && !withoutTools(key.Str, body) {
				err = unsupported(key.Str, why)
			}
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	add("max_tokens", limit)
	return append(text, '}'), nil
}

// withoutTools reports whether tools are named but must not be called.
func withoutTools(name string, body gjson.Result) bool {
	return name == "tools" && body.Get("tool_choice").Str == "none" || name == "functions" && body.Get("function_call").Str == "none"
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}
