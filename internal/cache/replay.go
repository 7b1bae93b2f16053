package cache

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

const (
	// pieceRunes is how long a piece of a replayed stream is.
	pieceRunes = 20
	// maxPieces bounds into how many pieces a text is cut: those of a longer one are longer.
	maxPieces = 512
)

// Replay is how an entry is said again.
type Replay struct {
	Request      string    // the id of the request that is answered, from which that of the answer follows
	Created      time.Time // of the answer
	Stream       bool      // as events; an answer of op responses always is
	IncludeUsage bool      // with a usage chunk, in a dialect where that is asked for
}

// Events gives the answer that an entry holds as the events of its op, newline-separated, or as one unary response. The error
// says that the entry holds no such answer.
func (r *Replay) Events(e *schemas.CacheEntry) (data []byte, count int, err error) {
	switch {
	case e.Op == schemas.OpMessages && r.Stream:
		data, err = r.message(e)
	case e.Op == schemas.OpMessages:
		return r.renew(e.Answer, `"id":`, "msg_"), 1, nil
	case e.Op == schemas.OpEmbedding:
		return e.Answer, 1, nil
	case r.Stream || e.Op == schemas.OpResponses:
		data, err = r.chunks(e)
	default:
		return r.renew(e.Answer, `"created":`+strconv.FormatInt(r.Created.Unix(), 10)+`,"id":`, prefixOf(e.Op)), 1, nil
	}
	return data, bytes.Count(data, []byte{'\n'}) + 1, err
}

func prefixOf(op schemas.Op) string {
	if op == schemas.OpCompletion {
		return "cmpl-"
	}
	return "chatcmpl-"
}

func (r *Replay) id(prefix string) string { return prefix + strings.TrimPrefix(r.Request, "req_") }

// renew gives a unary answer its own id. Both texts are of plain characters.
func (r *Replay) renew(answer []byte, before, prefix string) []byte {
	id := r.id(prefix)
	out := make([]byte, 0, len(answer)+len(before)+len(id)+4)
	out = append(append(append(append(out, '{'), before...), '"'), id...)
	out = append(out, '"')
	if len(answer) > 2 {
		out = append(out, ',')
	}
	return append(out, answer[1:]...)
}

// chunks streams a chat answer or a completion.
func (r *Replay) chunks(e *schemas.CacheEntry) ([]byte, error) {
	root := gjson.ParseBytes(e.Answer)
	choice := root.Get("choices.0")
	if !choice.IsObject() {
		return nil, fmt.Errorf("replay an entry: it has no choice")
	}
	object := "chat.completion.chunk"
	if e.Op == schemas.OpCompletion {
		object = "text_completion"
	}
	head := []byte(`{"id":"` + r.id(prefixOf(e.Op)) + `","object":"` + object + `","created":` + strconv.FormatInt(r.Created.Unix(), 10) + `,"model":`)
	head = append(head, member(root, "model", `""`)...)
	if print := root.Get("system_fingerprint"); print.Type == gjson.String {
		head = append(append(head, `,"system_fingerprint":`...), print.Raw...)
	}
	w := &chunkWriter{head: append(head, `,"choices":[`...), out: make([]byte, 0, 4*len(e.Answer)+8*len(head))}
	finish := member(choice, "finish_reason", `"stop"`)
	if e.Op == schemas.OpCompletion {
		for piece := range pieces(choice.Get("text").Str) {
			w.text(piece)
		}
		w.event(`{"text":"","index":0,"logprobs":null,"finish_reason":`, finish, `}`)
	} else {
		w.message(choice.Get("message"))
		w.event(`{"index":0,"delta":{},"logprobs":null,"finish_reason":`, finish, `}`)
	}
	if r.IncludeUsage || e.Op == schemas.OpResponses {
		w.begin()
		w.out = append(append(append(w.out, `],"usage":`...), member(root, "usage", "null")...), '}')
	}
	return w.out, nil
}

// chunkWriter writes chunks, which all begin alike.
type chunkWriter struct{ head, out []byte }

func (w *chunkWriter) begin() {
	if len(w.out) > 0 {
		w.out = append(w.out, '\n')
	}
	w.out = append(w.out, w.head...)
}

func (w *chunkWriter) event(parts ...string) {
	w.begin()
	for _, part := range parts {
		w.out = append(w.out, part...)
	}
	w.out = append(w.out, "]}"...)
}

func (w *chunkWriter) text(piece string) {
	w.event(`{"text":`, quote(piece), `,"index":0,"logprobs":null,"finish_reason":null}`)
}

// message says the role, then thoughts where there are any, then the content.
func (w *chunkWriter) message(message gjson.Result) {
	w.event(`{"index":0,"delta":{"role":`, member(message, "role", `"assistant"`), `,"content":""},"logprobs":null,"finish_reason":null}`)
	for _, name := range [...]string{"reasoning_content", "reasoning", "content"} {
		for piece := range pieces(message.Get(name).Str) {
			w.event(`{"index":0,"delta":{"`, name, `":`, quote(piece), `},"logprobs":null,"finish_reason":null}`)
		}
	}
}

// pieces cuts a text between runes.
func pieces(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		size := max(pieceRunes, utf8.RuneCountInString(text)/maxPieces+1)
		for len(text) > 0 {
			end := 0
			for range size {
				if end == len(text) {
					break
				}
				_, n := utf8.DecodeRuneInString(text[end:])
				end += n
			}
			if !yield(text[:end]) {
				return
			}
			text = text[end:]
		}
	}
}

// member is a member of an object as JSON, or instead of it.
func member(object gjson.Result, name, instead string) string {
	if value := object.Get(name); value.Exists() {
		return value.Raw
	}
	return instead
}

func quote(text string) string {
	b, _ := jsontext.AppendQuote(nil, text) // it was JSON before, so that it is UTF-8
	return string(b)
}
