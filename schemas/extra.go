package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// Extra holds members of a JSON record that this version does not know. They are written back as they came.
type Extra map[string]json.RawMessage

// encodeKeeping marshals the struct v with the members of extra added.
func encodeKeeping(v any, extra Extra) []byte {
	data := encodeJSON(v)
	if len(extra) == 0 {
		return data
	}
	more := encodeJSON(extra)
	return append(append(data[:len(data)-1], ','), more[1:]...)
}

// encodeJSON marshals v on one line without escaping <, > and &: prompts and answers are full of them.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // a record holds only types that marshal; raw members were checked when they were set
	}
	return bytes.TrimSuffix(b.Bytes(), newline)
}

// decodeKeeping unmarshals data into the struct pointer v and what v has no member for into extra.
func decodeKeeping(data []byte, v any, extra *Extra) error {
	if decodeKnown(data, v) {
		return nil
	}
	reflect.ValueOf(v).Elem().SetZero()
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	var all Extra
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if all == nil {
		return errors.New("it is null, not an object")
	}
	for field := range reflect.TypeOf(v).Elem().Fields() {
		if name := memberName(field); name != "" {
			delete(all, name)
		}
	}
	for name := range all {
		if hasMember(v, name) {
			delete(all, name)
		}
	}
	if len(all) > 0 {
		*extra = all
	}
	return nil
}

// decodeKnown is the common case at half the price: data is an object of which every member is known.
func decodeKnown(data []byte, v any) bool {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return len(data) > 0 && data[0] == '{' && decoder.Decode(v) == nil && decoder.InputOffset() == int64(len(data))
}

// hasMember reports whether encoding/json reads the member name into a field of the struct pointer v. It matches without
// regard to case, so Status is not an unknown member: written back beside status it would win over it.
func hasMember(v any, name string) bool {
	for field := range reflect.TypeOf(v).Elem().Fields() {
		if member := memberName(field); member != "" && strings.EqualFold(member, name) {
			return true
		}
	}
	return false
}

// memberName is the JSON member of a field, empty when it has none.
func memberName(field reflect.StructField) string {
	tag := field.Tag.Get("json")
	if tag == "-" {
		return ""
	}
	name, _, _ := strings.Cut(tag, ",")
	return name
}
