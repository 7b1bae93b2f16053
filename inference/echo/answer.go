package echo

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// answer is what a request is answered with, in pieces that are ready to be put together.
type answer struct {
	dials        Dials
	try          int
	tokens       []string // the text; token i is tokens[i % len(tokens)]
	count        int      // tokens in the answer
	finish       string
	choices      int
	includeUsage bool
	promptTokens int

	head   []byte   // of every chunk, up to and with `"choices":[`
	quoted [][]byte // the tokens as JSON strings
	buf    []byte
	object []byte // id, created and model, as members
}

func newAnswer(dials Dials, r *inference.GenerateRequest) (*answer, error) {
	if r.Op != schemas.OpChat && r.Op != "" {
		return nil, schemas.Errorf(schemas.CodeUnsupported, "the echo model has no operation %q; use %q", r.Op, schemas.OpChat)
	}
	body := gjson.ParseBytes(r.Body)
	dials, err := dials.override(body.Get("x_echo").Raw)
	if err != nil {
		return nil, err
	}
	text, prompt := question(body.Get("messages"))
	a := &answer{
		dials: dials, try: max(r.Try, 1), tokens: tokenise("echo: " + text), promptTokens: prompt,
		choices: max(1, int(body.Get("n").Int())), includeUsage: body.Get("stream_options.include_usage").Bool(),
	}
	if dials.Vary {
		a.tokens = append([]string{rand.Text()[:8] + " "}, a.tokens...)
	}
	a.limit(body)
	a.prepare(r.Identity, body.Get("model").Str)
	return a, nil
}

// limit decides how long the answer is and how it ends.
func (a *answer) limit(body gjson.Result) {
	a.count, a.finish = len(a.tokens), "stop"
	if a.dials.Tokens > 0 {
		a.count = a.dials.Tokens
	}
	most := body.Get("max_completion_tokens")
	if most.Type != gjson.Number {
		most = body.Get("max_tokens")
	}
	if most.Type == gjson.Number && int(most.Int()) < a.count {
		a.count, a.finish = int(most.Int()), "length"
	}
}

func (a *answer) prepare(id schemas.Identity, model string) {
	sum := sha256.Sum256([]byte(id.String()))
	a.object = append([]byte(`"id":"chatcmpl-`), hex.EncodeToString(sum[:12])...)
	a.object = append(a.object, `","created":`...)
	a.object = strconv.AppendInt(a.object, created(id.Request), 10)
	a.object = appendString(append(a.object, `,"model":`...), model)
	a.head = append([]byte(`{"object":"chat.completion.chunk",`), a.object...)
	a.head = append(a.head, `,"choices":[`...)
	a.quoted = make([][]byte, min(len(a.tokens), a.count))
	for i := range a.quoted {
		a.quoted[i] = appendString(nil, a.tokens[i])
	}
}

// created is the time in the request's own id, or a fixed one: the clock would make two runs differ.
func created(request string) int64 {
	if s, ok := strings.CutPrefix(request, "req_"); ok {
		if id, err := ulid.ParseStrict(s); err == nil {
			return int64(id.Time() / uint64(time.Second/time.Millisecond))
		}
	}
	return 1_700_000_000
}

func (a *answer) opening(choice int) []byte {
	return a.chunk(choice, `"delta":{"role":"assistant","content":""},"finish_reason":null`)
}

func (a *answer) closing(choice int) []byte {
	return a.chunk(choice, `"delta":{},"finish_reason":"`+a.finish+`"`)
}

func (a *answer) delta(choice, i int) []byte {
	b := a.begin(choice)
	b = append(b, `"delta":{"content":`...)
	b = append(b, a.quoted[i%len(a.quoted)]...)
	a.buf = append(b, `},"finish_reason":null}]}`...)
	return a.buf
}

func (a *answer) chunk(choice int, rest string) []byte {
	a.buf = append(append(a.begin(choice), rest...), "}]}"...)
	return a.buf
}

func (a *answer) begin(choice int) []byte {
	b := append(a.buf[:0], a.head...)
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, int64(choice), 10)
	return append(b, ',')
}

func (a *answer) usageChunk() []byte {
	b := append(a.buf[:0], a.head...)
	b = append(b, `],"usage":`...)
	a.buf = append(a.appendUsage(b), '}')
	return a.buf
}

func (a *answer) appendUsage(b []byte) []byte {
	completion := a.count * a.choices
	b = append(b, `{"prompt_tokens":`...)
	b = strconv.AppendInt(b, int64(a.promptTokens), 10)
	b = append(b, `,"completion_tokens":`...)
	b = strconv.AppendInt(b, int64(completion), 10)
	b = append(b, `,"total_tokens":`...)
	b = strconv.AppendInt(b, int64(a.promptTokens+completion), 10)
	return append(b, '}')
}

// whole is the unary response.
func (a *answer) whole() []byte {
	var text strings.Builder
	for i := range a.count {
		text.WriteString(a.tokens[i%len(a.tokens)])
	}
	content := appendString(nil, text.String())
	b := append([]byte(`{"object":"chat.completion",`), a.object...)
	b = append(b, `,"choices":[`...)
	for choice := range a.choices {
		if choice > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(choice), 10)
		b = append(b, `,"message":{"role":"assistant","content":`...)
		b = append(b, content...)
		b = append(b, `,"refusal":null},"logprobs":null,"finish_reason":"`...)
		b = append(append(b, a.finish...), `"}`...)
	}
	return append(a.appendUsage(append(b, `],"usage":`...)), '}')
}

// question is the text of the last user message, and how many tokens all messages have.
func question(messages gjson.Result) (last string, tokens int) {
	messages.ForEach(func(_, message gjson.Result) bool {
		text := content(message.Get("content"))
		tokens += len(tokenise(text))
		if message.Get("role").Str == "user" {
			last = text
		}
		return true
	})
	return last, tokens
}

// content is the text of a message, which may come in parts.
func content(value gjson.Result) string {
	if value.Type == gjson.String {
		return value.Str
	}
	var text strings.Builder
	value.ForEach(func(_, part gjson.Result) bool {
		if part.Get("type").Str == "text" {
			text.WriteString(part.Get("text").Str)
		}
		return true
	})
	return text.String()
}

// tokenise splits text into words with the white space after them, and long words into pieces of at most 12 runes.
func tokenise(text string) []string {
	var tokens []string
	start, runes, space := 0, 0, false
	for i, r := range text {
		white := r == ' ' || r == '\n' || r == '\t' || r == '\r'
		if i > start && (space && !white || runes == 12 && !white) {
			tokens, start, runes = append(tokens, text[start:i]), i, 0
		}
		space = white
		runes++
	}
	if start < len(text) {
		tokens = append(tokens, text[start:])
	}
	return tokens
}

func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}
