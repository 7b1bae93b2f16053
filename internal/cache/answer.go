package cache

import (
	"iter"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// The reasons that lie in an answer.
const (
	ReasonFinish Reason = "finish" // it did not come to its own end: cut at a limit, filtered, refused, or with calls of tools
	ReasonUsage  Reason = "usage"  // nobody told what it cost
	ReasonShape  Reason = "shape"  // it is not one text, or not what the op promises
	ReasonSize   Reason = "size"   // it is too large
)

// Said is an answer that has come to its end.
type Said struct {
	Op       schemas.Op
	Response []byte                    // a unary answer; nil of a stream
	Events   iter.Seq2[uint64, []byte] // of a stream, all of them
	Finishes []string                  // by choice, in the words of chat
	Usage    *schemas.Usage
}

// Keep gives what an entry holds of an answer, or the reason why the answer is not fit to be one.
func Keep(said *Said) (answer []byte, reason Reason) {
	if said.Usage == nil || said.Usage.TotalTokens <= 0 || said.Usage.PromptTokens < 0 || said.Usage.CompletionTokens < 0 {
		return nil, ReasonUsage
	}
	if said.Op != schemas.OpEmbedding && !slices.Equal(said.Finishes, []string{"stop"}) {
		return nil, ReasonFinish
	}
	switch said.Op {
	case schemas.OpEmbedding:
		answer, reason = keepEmbedding(said.Response)
	case schemas.OpMessages:
		answer, reason = keepMessage(said)
	default:
		answer, reason = keepChat(said)
	}
	if reason == "" && len(answer) > schemas.MaxCacheEntryBytes {
		return nil, ReasonSize
	}
	return answer, reason
}

func keepChat(said *Said) ([]byte, Reason) {
	response := said.Response
	if response == nil {
		var err error
		if response, err = openai.Assemble(said.Events, said.Usage); err != nil {
			return nil, ReasonShape
		}
	}
	var whole openai.Chunk
	if whole.Peek(response) != nil || len(whole.Choices) != 1 {
		return nil, ReasonShape
	}
	switch o := &whole.Choices[0]; {
	case o.Finish != "stop" || o.Refusal != "" || o.ToolCalls != "" && o.ToolCalls != "[]" || o.FunctionCall != "":
		return nil, ReasonFinish
	case o.Content == "" || o.Index != 0:
		return nil, ReasonShape
	}
	return without(response, "id", "created"), ""
}

func keepEmbedding(response []byte) ([]byte, Reason) {
	root, err := openai.ParseObject(response)
	if err != nil || !root.Get("data.0.embedding").Exists() {
		return nil, ReasonShape
	}
	return openai.OneLine(response), ""
}

// without is a JSON object on one line, less some members.
func without(object []byte, names ...string) []byte {
	out := make([]byte, 0, len(object))
	gjson.ParseBytes(openai.OneLine(object)).ForEach(func(name, value gjson.Result) bool {
		if !slices.Contains(names, name.Str) {
			out = append(append(append(append(out, ','), name.Raw...), ':'), value.Raw...)
		}
		return true
	})
	if len(out) == 0 {
		return []byte("{}")
	}
	out[0] = '{'
	return append(out, '}')
}
