package triton

import (
	"strconv"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// writer turns what the model says into the chunks, or the response, of an op. What it returns is valid until its next
// call.
type writer struct {
	completion bool
	head       []byte // of every chunk, up to and with `"choices":[`
	opening    string // of a response, up to its object
	buf        []byte
	chunk      openai.Chunk
	choice     [1]openai.Choice
}

func newWriter(op schemas.Op, request, model string, created int64) *writer {
	w := &writer{completion: op == schemas.OpCompletion}
	prefix, object := "chatcmpl-", "chat.completion"
	if w.completion {
		prefix, object = "cmpl-", "text_completion"
	}
	id := appendString(nil, prefix+request)
	rest := strconv.AppendInt([]byte(`","created":`), created, 10)
	rest = append(appendString(append(rest, `,"model":`...), model), `,"choices":[`...)
	opening := `{"id":` + string(id) + `,"object":"` + object
	w.opening = opening + string(rest)
	if !w.completion {
		opening += ".chunk"
	}
	w.head = append([]byte(opening), rest...)
	w.chunk.Model = model
	return w
}

// say is a chunk with members of its choice after the index.
func (w *writer) say(o openai.Choice, members ...string) ([]byte, *openai.Chunk) {
	w.buf = append(append(w.buf[:0], w.head...), `{"index":0,`...)
	for _, m := range members {
		w.buf = append(w.buf, m...)
	}
	w.buf = append(w.buf, `}]}`...)
	return w.buf, w.tell(o)
}

func (w *writer) tell(o openai.Choice) *openai.Chunk {
	w.choice[0] = o
	w.chunk.Choices, w.chunk.Usage = w.choice[:], ""
	return &w.chunk
}

// role opens a chat.
func (w *writer) role() ([]byte, *openai.Chunk) {
	return w.say(openai.Choice{Role: "assistant"}, `"delta":{"role":"assistant","content":""},"finish_reason":null`)
}

func (w *writer) text(text string) ([]byte, *openai.Chunk) {
	said := openai.Choice{Content: text}
	if w.completion {
		return w.say(said, `"text":`, string(appendString(nil, text)), `,"logprobs":null,"finish_reason":null`)
	}
	return w.say(said, `"delta":{"content":`, string(appendString(nil, text)), `},"finish_reason":null`)
}

func (w *writer) finish(reason string) ([]byte, *openai.Chunk) {
	said := openai.Choice{Finish: reason}
	if w.completion {
		return w.say(said, `"text":"","logprobs":null,"finish_reason":"`, reason, `"`)
	}
	return w.say(said, `"delta":{},"finish_reason":"`, reason, `"`)
}

// usage is a chunk with the counts and no choice.
func (w *writer) usage(u usage) ([]byte, *openai.Chunk) {
	counts := u.append(nil)
	w.buf = append(append(append(w.buf[:0], w.head...), `],"usage":`...), counts...)
	w.buf = append(w.buf, '}')
	w.chunk.Choices, w.chunk.Usage = nil, string(counts)
	return w.buf, &w.chunk
}

// response is a whole answer.
func (w *writer) response(text, reason string, u usage) ([]byte, *openai.Chunk) {
	b := append(append(w.buf[:0], w.opening...), `{"index":0,`...)
	if w.completion {
		b = appendString(append(b, `"text":`...), text)
	} else {
		b = appendString(append(b, `"message":{"role":"assistant","content":`...), text)
		b = append(b, `,"refusal":null}`...)
	}
	b = append(append(append(b, `,"logprobs":null,"finish_reason":"`...), reason...), `"}],"usage":`...)
	w.buf = append(u.append(b), '}')
	chunk := w.tell(openai.Choice{Role: "assistant", Content: text, Finish: reason})
	chunk.Usage = string(u.append(nil))
	return w.buf, chunk
}

// usage counts tokens.
type usage struct{ prompt, answer uint64 }

func (u usage) append(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"prompt_tokens":`...), u.prompt, 10)
	b = strconv.AppendUint(append(b, `,"completion_tokens":`...), u.answer, 10)
	return append(strconv.AppendUint(append(b, `,"total_tokens":`...), u.prompt+u.answer, 10), '}')
}
