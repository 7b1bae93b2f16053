package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// appendString writes s as encoding/json does, which is asked for all but plain ASCII.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return append(b, encodeJSON(s)...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendFloat(b []byte, v float64) []byte {
	if f := math.Abs(v); f == 0 || f >= 1e-6 && f < 1e21 { // beyond, encoding/json writes an exponent
		return strconv.AppendFloat(b, v, 'f', -1, 64)
	}
	return append(b, encodeJSON(v)...)
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

// The decoders read valid JSON. What is unusual, or not what it should be, is left to encoding/json.

func decodeString(data []byte, v *string) error {
	if s := data[1:max(1, len(data)-1)]; data[0] == '"' && bytes.IndexByte(s, '\\') < 0 && utf8.Valid(s) {
		*v = string(s)
		return nil
	}
	return json.Unmarshal(data, v)
}

func decodeNumber[T int | int64](data []byte, v *T) error {
	if n, err := strconv.ParseInt(string(data), 10, 64); err == nil && int64(T(n)) == n {
		*v = T(n)
		return nil
	}
	return json.Unmarshal(data, v)
}

func decodeFloat(data []byte, v *float64) error {
	if f, err := strconv.ParseFloat(string(data), 64); err == nil {
		*v = f
		return nil
	}
	return json.Unmarshal(data, v)
}

func decodeMoney(data []byte, v *Money) error {
	amount, err := ParseMoney(string(data))
	if err == nil {
		*v = amount
		return nil
	}
	var f float64
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	if f *= float64(MoneyUnit); math.Abs(f) >= math.MaxInt64 {
		return fmt.Errorf("%.40s is no amount of money", data)
	}
	*v = Money(math.Round(f))
	return nil
}

// decodeList reads a list of items, or null.
func decodeList[T any](data []byte, list *[]T, decodeItem func([]byte, *T) error) error {
	if *list = nil; data[0] != '[' {
		return json.Unmarshal(data, list)
	}
	for s := (scanner{data: data, at: 1}); s.more(']'); {
		*list = append(*list, *new(T))
		if err := decodeItem(s.value(), &(*list)[len(*list)-1]); err != nil {
			return err
		}
	}
	return nil
}
