package cache

import (
	"bytes"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-llm/weir/schemas"
)

// canonicalBody is a request body for comparison.
type canonicalBody struct {
	kept          jsontext.Value // what can change the answer
	streamOptions jsontext.Value // nil when there are none
}

// canonical gives the body in the form of RFC 8785, less the members that cannot change an answer.
func canonical(op schemas.Op, body []byte) (c canonicalBody, reason Reason) {
	c.kept = make(jsontext.Value, 0, len(body))
	c.kept = append(c.kept, '{')
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if _, err := d.ReadToken(); err != nil {
		return c, ReasonBody
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return c, ReasonBody
		}
		what := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return c, ReasonBody
		}
		class, reason := classify(op, what)
		if reason != "" && given(compact(value)) {
			return c, reason
		}
		switch class {
		case options:
			c.streamOptions = bytes.Clone(value)
		case kept:
			c.add(what, value)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return c, ReasonBody
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return c, ReasonBody
	}
	return c, c.finish()
}

func (c *canonicalBody) add(name string, value jsontext.Value) {
	if len(c.kept) > 1 {
		c.kept = append(c.kept, ',')
	}
	c.kept, _ = jsontext.AppendQuote(c.kept, name) // the decoder has seen that it is UTF-8
	c.kept = append(append(c.kept, ':'), value...)
}

func (c *canonicalBody) finish() Reason {
	c.kept = append(c.kept, '}')
	if err := c.kept.Canonicalize(); err != nil {
		return ReasonBody
	}
	if c.streamOptions != nil {
		if err := c.streamOptions.Canonicalize(); err != nil {
			return ReasonBody
		}
	}
	if string(c.streamOptions) == "null" {
		c.streamOptions = nil
	}
	switch {
	case inexact(c.kept), inexact(c.streamOptions):
		return ReasonNumber
	case refers(c.kept):
		return ReasonReference
	case bytes.Contains(c.kept, []byte(`"modalities":["audio"`)), bytes.Contains(c.kept, []byte(`"modalities":["text","audio"`)):
		return ReasonAudio
	}
	return ""
}

// compact is a small value without white space.
func compact(value jsontext.Value) []byte {
	if len(value) > 64 {
		return value // it says something
	}
	small := value.Clone()
	if small.Compact() != nil {
		return value
	}
	return small
}

// maxExact is 2^53: numbers below are told apart by the canonical form, which holds them as doubles.
const maxExact = 1 << 53

// inexact reports whether canonical JSON has a number that may have been rounded.
func inexact(canonical []byte) bool {
	for i := 0; i < len(canonical); i++ {
		switch c := canonical[i]; {
		case c == '"':
			i += stringEnd(canonical[i:]) - 1
		case c == '-' || c >= '0' && c <= '9':
			end := i + 1
			for end < len(canonical) && bytes.IndexByte([]byte("0123456789.eE+-"), canonical[end]) >= 0 {
				end++
			}
			if tooLarge(canonical[i:end]) {
				return true
			}
			i = end - 1
		}
	}
	return false
}

func tooLarge(number []byte) bool {
	if len(number) < 16 && !bytes.ContainsAny(number, "e") {
		return false
	}
	n, err := strconv.ParseFloat(string(number), 64)
	return err != nil || n >= maxExact || n <= -maxExact
}

// stringEnd is the length of the string that valid JSON begins with.
func stringEnd(data []byte) int {
	for i := 1; ; i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}
