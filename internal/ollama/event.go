package ollama

import (
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// Event is one line of an answer, or a whole one. Its strings do not share memory with the data.
type Event struct {
	Error string // the error as JSON, empty when it is none
	Done  bool   // the answer ends with it

	model     string
	created   string
	content   string
	thinking  string
	toolCalls gjson.Result
	logProbs  string // JSON array
	reason    string // why it is done
	prompt    int    // tokens
	answer    int    // tokens
}

// errNoAnswer says that a JSON object is no piece of an answer.
var errNoAnswer = errors.New("it has neither a message nor an error")

// Peek reads data, which must be one JSON object, into e. It replaces all that e held.
func (e *Event) Peek(data []byte) error {
	*e = Event{}
	root, err := openai.ParseObject(data)
	if err != nil {
		return err
	}
	known := false
	root.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "model":
			e.model = value.Str
		case "created_at":
			e.created = value.Str
		case "message":
			known = value.IsObject()
			e.content, e.thinking, e.toolCalls = value.Get("content").Str, value.Get("thinking").Str, value.Get("tool_calls")
		case "logprobs":
			if value.IsArray() {
				e.logProbs = value.Raw
			}
		case "done":
			e.Done = value.Bool()
		case "done_reason":
			e.reason = value.Str
		case "prompt_eval_count":
			e.prompt = count(value)
		case "eval_count":
			e.answer = count(value)
		case "error":
			if value.Type != gjson.Null {
				e.Error, known = string(data), true
			}
		}
		return true
	})
	if !known && !e.Done {
		return errNoAnswer
	}
	return nil
}

// count is a number of tokens, which no server can make absurd.
func count(value gjson.Result) int { return int(min(max(value.Num, 0), 1<<40)) }

// Loaded reports whether the server did no more than load or unload the model.
func (e *Event) Loaded() bool { return e.reason == "load" || e.reason == "unload" }

// unix is when the piece was made, or now.
func (e *Event) unix(now time.Time) int64 {
	if at, err := time.Parse(time.RFC3339Nano, e.created); err == nil && at.Unix() > 0 {
		return at.Unix()
	}
	return now.Unix()
}

// finish is why the answer ended, in the terms of chat.
func (e *Event) finish(calls int) string {
	switch {
	case !e.Done:
		return ""
	case calls > 0:
		return "tool_calls"
	case e.reason == "length":
		return "length"
	}
	return "stop"
}
