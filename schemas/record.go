package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Extra holds members of a JSON record that this version does not know. They are written back as they came.
type Extra map[string]json.RawMessage

// record is a JSON object that keeps what it does not know. Records are written and read without reflection, since
// there are several for every request; what is written is what encoding/json writes, without escaped <, > and &.
type record interface {
	// members visits every member in the order in which they are written.
	members(m *members)
	extra() *Extra
}

// appendRecord writes r as one line of JSON.
func appendRecord(b []byte, r record) []byte {
	m := members{b: b}
	r.members(&m)
	if extra := *r.extra(); len(extra) > 0 {
		m.b = appendExtra(m.b, extra)
	}
	if len(m.b) == len(b) {
		return append(b, "{}"...)
	}
	m.b[len(b)] = '{' // instead of the first comma
	return append(m.b, '}')
}

func appendExtra(b []byte, extra Extra) []byte {
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		b = appendRaw(append(appendString(append(b, ','), name), ':'), extra[name])
	}
	return b
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
	extra := r.extra()
	m := members{reading: true}
	for s := (scanner{rest: data[1:]}); s.more('}'); {
		m.found = false
		m.name, m.data = s.member()
		if r.members(&m); m.err != nil {
			return fmt.Errorf("member %s: %w", m.name, m.err)
		}
		if !m.found {
			if *extra == nil {
				*extra = Extra{}
			}
			(*extra)[string(m.name)] = m.data
		}
	}
	return nil
}
