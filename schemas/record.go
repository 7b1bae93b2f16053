package schemas

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Extra holds members of a JSON record that this version does not know. They are written back as they came.
type Extra map[string]json.RawMessage

// record is a JSON object that keeps what it does not know. Records are written and read without reflection, since
// there are several for every request; what is written is what encoding/json writes, without escaped <, > and &.
type record interface {
	members() []member
	extra() *Extra
}

// member is a member of a record: its name, a pointer to its value, and whether it is written even when it is zero.
type member struct {
	name   string
	value  any
	always bool
}

// appendRecord writes r as one line of JSON.
func appendRecord(b []byte, r record) []byte {
	start := len(b)
	for _, m := range r.members() {
		if m.always || !isZero(m.value) {
			b = appendValue(appendName(b, m.name), m.value)
		}
	}
	if extra := *r.extra(); len(extra) > 0 {
		b = appendExtra(b, extra)
	}
	if len(b) == start {
		return append(b, "{}"...)
	}
	b[start] = '{' // instead of the first comma
	return append(b, '}')
}

func appendExtra(b []byte, extra Extra) []byte {
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		b = appendRaw(append(appendString(append(b, ','), name), ':'), extra[name])
	}
	return b
}

// appendName writes the comma and the name, which needs no escaping.
func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func isZero(value any) bool {
	switch v := value.(type) {
	case *string:
		return *v == ""
	case *int:
		return *v == 0
	case *int64:
		return *v == 0
	case *float64:
		return *v == 0
	case *time.Time:
		return v.IsZero()
	case *json.RawMessage:
		return len(*v) == 0
	case *[]byte:
		return len(*v) == 0
	case *[]string:
		return len(*v) == 0
	case *[]Try:
		return len(*v) == 0
	case **Usage:
		return *v == nil
	case **EventLog:
		return *v == nil
	}
	return false
}

func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case *string:
		return appendString(b, *v)
	case *int:
		return strconv.AppendInt(b, int64(*v), 10)
	case *int64:
		return strconv.AppendInt(b, *v, 10)
	case *float64:
		if f := math.Abs(*v); f == 0 || f >= 1e-6 && f < 1e21 { // beyond, encoding/json writes an exponent
			return strconv.AppendFloat(b, *v, 'f', -1, 64)
		}
	case *time.Time:
		return append(v.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	case *json.RawMessage:
		return appendRaw(b, *v)
	case *[]byte:
		return append(base64.StdEncoding.AppendEncode(append(b, '"'), *v), '"')
	case *[]string:
		return appendList(b, *v, func(b []byte, s *string) []byte { return appendString(b, *s) })
	case *[]Try:
		return appendList(b, *v, func(b []byte, t *Try) []byte { return appendRecord(b, t) })
	case *[]FrameMark:
		return appendList(b, *v, appendFrameMark)
	case **Usage:
		return appendRecord(b, *v)
	case **EventLog:
		return appendRecord(b, *v)
	}
	return append(b, encodeJSON(value)...)
}

func appendList[T any](b []byte, list []T, appendItem func([]byte, *T) []byte) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, &list[i])
	}
	return append(b, ']')
}

// appendRaw writes JSON on one line. A line feed in JSON can only be white space between its tokens.
func appendRaw(b []byte, raw json.RawMessage) []byte {
	if bytes.IndexByte(raw, '\n') < 0 {
		return append(b, raw...)
	}
	line := bytes.NewBuffer(b)
	if err := json.Compact(line, raw); err != nil {
		panic(err) // raw members are checked when they are set
	}
	return line.Bytes()
}

// appendString writes s as encoding/json does, which is asked for all but plain ASCII.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return append(b, encodeJSON(s)...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// encodeJSON marshals v on one line without escaping <, > and &: prompts and answers are full of them.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // a record holds only types that marshal
	}
	return bytes.TrimSuffix(b.Bytes(), newline)
}

// decodeRecord reads a record and keeps the members that r does not have as its extra. Raw members share data.
func decodeRecord(data []byte, r record) error {
	if !json.Valid(data) {
		return json.Unmarshal(data, new(any)) // which tells where
	}
	return decodeValid(bytes.TrimLeft(data, " \t\r\n"), r)
}

// decodeValid reads a record from valid JSON without leading white space.
func decodeValid(data []byte, r record) error {
	if data[0] != '{' {
		return errors.New("it is not an object")
	}
	known, next := r.members(), 0
	extra := r.extra()
	for s := (scanner{rest: data[1:]}); s.more('}'); {
		name, value := s.member()
		i := indexMember(known, next, name)
		if i < 0 {
			if *extra == nil {
				*extra = Extra{}
			}
			(*extra)[string(name)] = value
			continue
		}
		next = i + 1
		if err := decodeValue(value, known[i].value); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
	}
	return nil
}

// indexMember finds a name. Members come in the order they are written in, so the next is looked at first.
func indexMember(known []member, next int, name []byte) int {
	for i := range known {
		if at := (next + i) % len(known); known[at].name == string(name) {
			return at
		}
	}
	return -1
}

func decodeValue(data []byte, value any) error {
	switch v := value.(type) {
	case *string:
		if s := data[1:max(1, len(data)-1)]; data[0] == '"' && bytes.IndexByte(s, '\\') < 0 && utf8.Valid(s) {
			*v = string(s)
			return nil
		}
	case *int:
		if n, err := strconv.Atoi(string(data)); err == nil {
			*v = n
			return nil
		}
	case *int64:
		if n, err := strconv.ParseInt(string(data), 10, 64); err == nil {
			*v = n
			return nil
		}
	case *float64:
		if f, err := strconv.ParseFloat(string(data), 64); err == nil {
			*v = f
			return nil
		}
	case *time.Time:
		return v.UnmarshalJSON(data)
	case *json.RawMessage:
		*v = data
		return nil
	case *[]string:
		return decodeList(data, v, decodeString)
	case *[]Try:
		return decodeList(data, v, decodeTry)
	case **Usage:
		return decodePointer(data, v)
	case **EventLog:
		return decodePointer(data, v)
	}
	return json.Unmarshal(data, value)
}

func decodePointer[T any, P interface {
	*T
	record
}](data []byte, value *P) error {
	if data[0] == 'n' { // null
		*value = nil
		return nil
	}
	*value = new(T)
	return decodeValid(data, *value)
}

// decodeList reads a list of items, or null.
func decodeList[T any](data []byte, list *[]T, decodeItem func([]byte, *T) error) error {
	if *list = nil; data[0] != '[' {
		return json.Unmarshal(data, list)
	}
	for s := (scanner{rest: data[1:]}); s.more(']'); {
		var item T
		if err := decodeItem(s.value(), &item); err != nil {
			return err
		}
		*list = append(*list, item)
	}
	return nil
}

func decodeTry(data []byte, t *Try) error {
	if data[0] == 'n' { // null
		return nil
	}
	return decodeValid(data, t)
}

func decodeString(data []byte, s *string) error { return decodeValue(data, s) }
