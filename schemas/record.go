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
	m.append(r)
	return m.b
}

// append writes r, which may be a member of another record.
func (m *members) append(r record) {
	start := len(m.b)
	r.members(m)
	if extra := *r.extra(); len(extra) > 0 {
		m.b = appendExtra(m.b, extra)
	}
	if len(m.b) == start {
		m.b = append(m.b, "{}"...)
		return
	}
	m.b[start] = '{' // instead of the first comma
	m.b = append(m.b, '}')
}

func appendExtra(b []byte, extra Extra) []byte {
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		b = appendRaw(append(appendString(append(b, ','), name), ':'), extra[name])
	}
	return b
}

// decodeRecord reads a record and keeps the members that r does not have as its extra. Raw members share data.
func decodeRecord(data []byte, r record) error {
	if !valid(data) {
		return json.Unmarshal(data, new(any)) // which tells where
	}
	return decodeValid(bytes.TrimLeft(data, " \t\r\n"), r)
}

// decodeValid reads a record from valid JSON without leading white space.
func decodeValid(data []byte, r record) error { return new(members).decode(data, r) }

// within reads a record that is a member of the one being read.
func (m *members) within(data []byte, r record) error {
	outer := *m
	err := m.decode(data, r)
	*m = outer
	return err
}

func (m *members) decode(data []byte, r record) error {
	if data[0] != '{' {
		return errors.New("it is not an object")
	}
	*m = members{reading: true, left: scanner{data: data, at: 1}, done: true}
	for m.err == nil && (!m.done || m.next()) {
		at := m.left.at
		r.members(m)
		if !m.done && m.left.at == at { // no member has that name
			keepExtra(r.extra(), m.name, m.data)
			m.done = true
		}
	}
	if m.err != nil {
		return fmt.Errorf("member %s: %w", m.name, m.err)
	}
	return nil
}

func keepExtra(extra *Extra, name, value []byte) {
	if *extra == nil {
		*extra = Extra{}
	}
	(*extra)[string(name)] = value
}
