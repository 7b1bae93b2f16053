package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-llm/weir/schemas"
)

// scanner walks a JSON document token by token, without allocating, and refuses what is not UTF-8, names a member twice
// or nests too deeply.
type scanner struct {
	body    []byte
	in      bytes.Buffer
	decoder *jsontext.Decoder // reads in, which holds body

	name      []byte // an unescaped member name
	members   []span // of the top-level object, when somebody notes them
	nameStart int    // where the last member's name begins
	wasNull   bool   // the last number read was null
}

// scanners keeps decoders, whose state is several allocations.
var scanners = sync.Pool{New: func() any { return &scanner{decoder: new(jsontext.Decoder)} }}

// span is a member of an object.
type span struct {
	start, end int // of the name's quote, and after the value
	strip      bool
}

func newScanner(body []byte) *scanner {
	s := scanners.Get().(*scanner)
	s.body = body
	s.in = *bytes.NewBuffer(body)
	s.decoder.Reset(&s.in)
	return s
}

// release gives the scanner back. Slices it returned must not be used any more.
func (s *scanner) release() {
	s.body, s.in, s.members = nil, bytes.Buffer{}, s.members[:0]
	if cap(s.name) > 4<<10 {
		s.name = nil
	}
	s.decoder.Reset(&s.in)
	scanners.Put(s)
}

func (s *scanner) offset() int         { return int(s.decoder.InputOffset()) }
func (s *scanner) kind() jsontext.Kind { return s.decoder.PeekKind() }

func (s *scanner) token() (jsontext.Token, error) {
	token, err := s.decoder.ReadToken()
	if err != nil {
		return token, syntaxError(err)
	}
	if s.decoder.StackDepth() > MaxDepth {
		return token, schemas.Errorf(schemas.CodeInvalidJSON, "the request body nests deeper than %d levels: send a flatter document", MaxDepth)
	}
	return token, nil
}

// skip reads one value of any kind.
func (s *scanner) skip() error {
	depth := s.decoder.StackDepth()
	for {
		if _, err := s.token(); err != nil {
			return err
		}
		if s.decoder.StackDepth() <= depth {
			return nil
		}
	}
}

// object reads an object and calls member with each name; member reads the value. The name is valid until then.
func (s *scanner) object(member func(name []byte) error) error {
	if _, err := s.token(); err != nil {
		return err
	}
	for s.kind() != '}' {
		raw, err := s.raw()
		if err != nil {
			return err
		}
		s.nameStart = s.offset() - len(raw)
		if err := member(s.unquote(raw)); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

// array reads an array and calls element before each value, which element reads.
func (s *scanner) array(element func() error) error {
	if _, err := s.token(); err != nil {
		return err
	}
	for s.kind() != ']' {
		if s.kind() == 0 { // a syntax error, which the next token tells
			_, err := s.token()
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

// end checks that nothing follows the document.
func (s *scanner) end() error {
	switch _, err := s.decoder.ReadToken(); {
	case err == nil:
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body goes on after its JSON object: send exactly one object")
	case !errors.Is(err, io.EOF):
		return syntaxError(err)
	}
	return nil
}

// raw reads a name, string, number or literal as it is written.
func (s *scanner) raw() (jsontext.Value, error) {
	raw, err := s.decoder.ReadValue()
	if err != nil {
		return nil, syntaxError(err)
	}
	return raw, nil
}

func (s *scanner) unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	s.name, _ = jsontext.AppendUnquote(s.name[:0], raw) // the decoder has validated it
	return s.name
}

// text reads a value, and reports whether it was a string.
func (s *scanner) text() ([]byte, bool, error) {
	if s.kind() != '"' {
		return nil, false, s.skip()
	}
	raw, err := s.raw()
	if err != nil {
		return nil, false, err
	}
	return s.unquote(raw), true, nil
}

// bool reads true or false; null leaves to as it is.
func (s *scanner) bool(param string, to *bool) error {
	switch kind := s.kind(); kind {
	case 't', 'f':
		*to = kind == 't'
	case 'n':
	default:
		if err := s.skip(); err != nil {
			return err
		}
		return invalid(param, "must be true or false")
	}
	return s.skip()
}

// integer reads a value, and reports whether it was an integer. wasNull tells null apart.
func (s *scanner) integer() (n int, ok bool, err error) {
	s.wasNull = s.kind() == 'n'
	if s.kind() != '0' {
		return 0, false, s.skip()
	}
	raw, err := s.raw()
	if err != nil {
		return 0, false, err
	}
	n, err = strconv.Atoi(string(raw))
	return n, err == nil, nil
}

// number reads a number; null leaves to as it is.
func (s *scanner) number(param string, to **float64) error {
	switch s.kind() {
	case 'n':
		return s.skip()
	case '0':
		raw, err := s.raw()
		if err != nil {
			return err
		}
		if value, err := strconv.ParseFloat(string(raw), 64); err == nil {
			*to = &value
			return nil
		}
		return invalid(param, "is out of range")
	}
	if err := s.skip(); err != nil {
		return err
	}
	return invalid(param, "must be a number")
}

func missing(param, next string) *schemas.Error {
	return schemas.Errorf(schemas.CodeMissingParameter, "%s is missing: %s", param, next).WithParam(param)
}

func invalid(param, format string, args ...any) *schemas.Error {
	return schemas.Errorf(schemas.CodeInvalidValue, "%s %s", param, fmt.Sprintf(format, args...)).WithParam(param)
}

// unquoted is what a parser says about a string, without the piece of it that it shows: errors are kept and shown where
// the request is not.
func unquoted(text string) string {
	for _, what := range [...]string{"invalid surrogate pair", "invalid escape sequence"} {
		if strings.HasPrefix(text, what) {
			return what + " in string"
		}
	}
	return text
}

// syntaxError says where the document is wrong without quoting it.
func syntaxError(err error) *schemas.Error {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && ok:
		name := printable([]byte(syntax.JSONPointer.LastToken()))
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body names the member %q twice in one object: servers disagree on which counts, send it once", name)
	case ok && errors.Is(err, io.ErrUnexpectedEOF):
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body ends at byte %d, inside its JSON: send the whole object", syntax.ByteOffset)
	case ok && syntax.Err != nil:
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body is not valid JSON at byte %d: %s", syntax.ByteOffset, unquoted(syntax.Err.Error()))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body holds no JSON: send one object")
	}
	return schemas.Errorf(schemas.CodeInvalidJSON, "the request body is not valid JSON: send one object").WithCause(err)
}

// printable shortens a name from outside for a message.
func printable(name []byte) string {
	const most = 64
	s := strings.ToValidUTF8(string(name), "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
