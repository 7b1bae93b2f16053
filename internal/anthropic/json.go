package anthropic

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// appendString appends s as a JSON string.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}

// object writes the members of a JSON object or the elements of an array, with their commas.
type object struct {
	out   []byte
	comma bool
}

func (o *object) next() {
	if o.comma {
		o.out = append(o.out, ',')
	}
	o.comma = true
}

// name begins a member, whose value is written by the caller.
func (o *object) name(name string) {
	o.next()
	o.out = appendString(o.out, name)
	o.out = append(o.out, ':')
}

func (o *object) raw(name, value string) {
	o.name(name)
	o.out = append(o.out, value...)
}

func (o *object) text(name, value string) {
	o.name(name)
	o.out = appendString(o.out, value)
}

func (o *object) number(name string, value int64) {
	o.name(name)
	o.out = strconv.AppendInt(o.out, value, 10)
}

// element appends a value that is JSON already.
func (o *object) element(value []byte) {
	o.next()
	o.out = append(o.out, value...)
}

// line is raw without line breaks, which in JSON can only be white space between its tokens.
func line(raw string) string {
	if !strings.ContainsAny(raw, "\r\n") {
		return raw
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(raw)
}

// isObject reports whether text is a JSON object. It comes from a string, so nobody has looked at it yet.
func isObject(text string) bool {
	_, err := openai.ParseObject([]byte(text))
	return err == nil
}

// given reports whether a member is there and not null.
func given(value gjson.Result) bool { return value.Exists() && value.Type != gjson.Null }

func invalid(param, problem string) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidValue, "%s %s", param, problem).WithParam(param)
}

func unsupported(param, problem string) *schemas.Error {
	return schemas.Errorf(schemas.CodeUnsupported, "%s %s", param, problem).WithParam(param)
}

func at(name string, i int, member string) string {
	return name + "[" + strconv.Itoa(i) + "]" + member
}
