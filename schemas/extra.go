package schemas

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Extra holds members of a JSON record that this version does not know. They are written back as they came.
type Extra map[string]json.RawMessage

// encodeKeeping marshals the struct v with the members of extra added.
func encodeKeeping(v any, extra Extra) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a record holds only types that marshal; raw members were checked when they were set
	}
	if len(extra) == 0 {
		return data
	}
	more, err := json.Marshal(extra)
	if err != nil {
		panic(err)
	}
	return append(append(data[:len(data)-1], ','), more[1:]...)
}

// decodeKeeping unmarshals data into the struct pointer v and what v has no member for into extra.
func decodeKeeping(data []byte, v any, extra *Extra) error {
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	var all Extra
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for field := range reflect.TypeOf(v).Elem().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		delete(all, name)
	}
	if len(all) > 0 {
		*extra = all
	}
	return nil
}
