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
	form         *form
	replies      []reply // one for each prompt
	each         int     // choices for each prompt
	includeUsage bool
	promptTokens int

	head   []byte // of every chunk, up to and with `"choices":[`
	object []byte // id, created and model, as members
	buf    []byte
}

// reply is the answer to one prompt.
type reply struct {
	tokens []string // the text; token i is tokens[i % len(tokens)]
	quoted [][]byte // the tokens as JSON strings
	count  int      // tokens in the answer
	finish string

	from int    // the first token that is still to come
	rest []byte // what is left of it, as JSON
}

func newAnswer(dials Dials, r *inference.GenerateRequest) (*answer, error) {
	form, err := formOf(r.Op)
	if err != nil {
		return nil, err
	}
	body := gjson.ParseBytes(r.Body)
	dials, err = dials.override(body.Get("x_echo").Raw)
	if err != nil {
		return nil, err
	}
	a := &answer{
		dials: dials, try: max(r.Try, 1) + max(r.Attempt, 1) - 1, form: form,
		each: max(1, int(body.Get("n").Int())), includeUsage: body.Get("stream_options.include_usage").Bool(),
	}
	for _, q := range form.questions(body) {
		a.promptTokens += q.tokens
		a.replies = append(a.replies, dials.reply(q.before, q.text, body))
	}
	if r.Resume != nil {
		if len(a.replies) > 1 || a.each > 1 || !a.replies[0].goOn(dials, r.Resume.Text) {
			return nil, schemas.Errorf(schemas.CodeUnsupported, "the echo model did not say what it is to go on from")
		}
	}
	a.prepare(r.Identity, body.Get("model").Str)
	return a, nil
}

// goOn leaves out what was said; it returns false for what the reply does not begin with.
func (r *reply) goOn(d Dials, said string) bool {
	if d.Vary { // each call says another first word, but for one that goes on
		if len(said) < len(r.tokens[0])-1 {
			return false
		}
		r.tokens[0] = said[:len(r.tokens[0])-1] + " "
		r.quoted[0] = appendString(nil, r.tokens[0])
	}
	for ; r.from < r.count; r.from++ {
		token := r.tokens[r.from%len(r.tokens)]
		if len(said) < len(token) {
			return r.within(token, said)
		}
		if !strings.HasPrefix(said, token) {
			return false
		}
		said = said[len(token):]
	}
	return said == ""
}

// within goes on inside a token. White space is no token of its own.
func (r *reply) within(token, said string) bool {
	rest := token[len(said):]
	if strings.TrimSpace(rest) == "" && said != "" {
		if r.from++; r.from < r.count {
			rest += r.tokens[r.from%len(r.tokens)]
		}
	}
	r.rest = appendString(nil, rest)
	return strings.HasPrefix(token, said)
}

// reply answers a text, behind what the answer begins with.
func (d Dials) reply(before, text string, body gjson.Result) reply {
	r := reply{tokens: append(tokenise(before), tokenise("echo: "+text)...)}
	if d.Vary {
		r.tokens = append([]string{rand.Text()[:8] + " "}, r.tokens...)
	}
	r.limit(d, body)
	r.quoted = make([][]byte, min(len(r.tokens), r.count))
	for i := range r.quoted {
		r.quoted[i] = appendString(nil, r.tokens[i])
	}
	return r
}

// limit decides how long the answer is and how it ends.
func (r *reply) limit(d Dials, body gjson.Result) {
	r.count, r.finish = len(r.tokens), "stop"
	if d.Tokens > 0 {
		r.count = d.Tokens
	}
	most := body.Get("max_completion_tokens")
	if most.Type != gjson.Number {
		most = body.Get("max_tokens")
	}
	if most.Type == gjson.Number && int(most.Int()) < r.count {
		r.count, r.finish = int(most.Int()), "length"
	}
}

// choices is how many answers there are.
func (a *answer) choices() int { return a.each * len(a.replies) }

// reply is what a choice says: those of a prompt stand together.
func (a *answer) reply(choice int) *reply { return &a.replies[choice/a.each] }

// longest is the number of tokens in the longest reply.
func (a *answer) longest() (most int) {
	for i := range a.replies {
		most = max(most, a.replies[i].count)
	}
	return most
}

func (a *answer) prepare(id schemas.Identity, model string) {
	sum := sha256.Sum256([]byte(id.String()))
	a.object = append([]byte(`"id":"`), a.form.prefix...)
	a.object = append(a.object, hex.EncodeToString(sum[:12])...)
	a.object = append(a.object, `","created":`...)
	a.object = strconv.AppendInt(a.object, created(id.Request), 10)
	a.object = appendString(append(a.object, `,"model":`...), model)
	a.head = append(append([]byte(`{"object":"`), a.form.chunk...), `",`...)
	a.head = append(append(a.head, a.object...), `,"choices":[`...)
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

func (a *answer) opening(choice int) []byte { return a.chunk(choice, a.form.opening) }

func (a *answer) closing(choice int) []byte {
	return a.chunk(choice, a.form.closing+a.reply(choice).finish+`"`)
}

func (a *answer) delta(choice, i int) []byte {
	b := append(a.begin(choice), a.form.before...)
	if r := a.reply(choice); i == r.from && r.rest != nil {
		b = append(b, r.rest...)
	} else {
		b = append(b, r.quoted[i%len(r.quoted)]...)
	}
	a.buf = append(append(b, a.form.after...), "}]}"...)
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
	completion, prompt := 0, a.promptTokens+a.replies[0].from // what was said before is a part of the prompt
	for i := range a.replies {
		completion += a.each * (a.replies[i].count - a.replies[i].from)
	}
	b = append(b, `{"prompt_tokens":`...)
	b = strconv.AppendInt(b, int64(prompt), 10)
	b = append(b, `,"completion_tokens":`...)
	b = strconv.AppendInt(b, int64(completion), 10)
	b = append(b, `,"total_tokens":`...)
	b = strconv.AppendInt(b, int64(prompt+completion), 10)
	return append(b, '}')
}

// whole is the unary response.
func (a *answer) whole() []byte {
	b := append(append([]byte(`{"object":"`), a.form.whole...), `",`...)
	b = append(append(b, a.object...), `,"choices":[`...)
	for choice := range a.choices() {
		if choice > 0 {
			b = append(b, ',')
		}
		r := a.reply(choice)
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(choice), 10)
		b = append(b, a.form.wholeBefore...)
		b = appendString(b, r.text())
		b = append(append(b, a.form.wholeAfter...), r.finish...)
		b = append(b, `"}`...)
	}
	return append(a.appendUsage(append(b, `],"usage":`...)), '}')
}

func (r *reply) text() string {
	var text strings.Builder
	for i := range r.count {
		text.WriteString(r.tokens[i%len(r.tokens)])
	}
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
