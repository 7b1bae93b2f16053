package schemas

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
)

// members visits the members of a record: it writes each that has a value, or reads the one that is next. A method is
// called with the member's name, where its value is, and whether it is written even when it is zero.
type members struct {
	b []byte // what was written

	reading    bool
	left       scanner // what follows the next member
	name, data []byte  // of the next member
	done       bool    // it was read
	err        error   // which ends the reading
}

const (
	always   = true
	optional = false
)

// read reports whether the visited member is the one to read. One visit reads all members that come in the order in
// which they are written.
func (m *members) read(name string) bool {
	if m.err != nil || m.done && !m.next() || string(m.name) != name {
		return false
	}
	m.done = true
	return true
}

// next moves to the next member; it returns false at the end.
func (m *members) next() bool {
	if !m.left.more('}') {
		return false
	}
	m.name, m.data = m.left.member()
	m.done = false
	return true
}

// write begins a member if it is to be written. The name needs no escaping.
func (m *members) write(name string, wanted bool) bool {
	if wanted {
		m.b = append(m.b, ',', '"')
		m.b = append(m.b, name...)
		m.b = append(m.b, '"', ':')
	}
	return wanted
}

func (m *members) text(name string, v *string, keep bool) {
	if m.reading {
		if m.read(name) {
			m.err = decodeString(m.data, v)
		}
	} else if m.write(name, keep || *v != "") {
		m.b = appendString(m.b, *v)
	}
}

func (m *members) number(name string, v *int, keep bool) {
	if m.reading {
		if m.read(name) {
			m.err = decodeNumber(m.data, v)
		}
	} else if m.write(name, keep || *v != 0) {
		m.b = strconv.AppendInt(m.b, int64(*v), 10)
	}
}

func (m *members) flag(name string, v *bool) {
	if m.reading {
		if m.read(name) {
			*v = string(m.data) == "true"
		}
	} else if m.write(name, *v) {
		m.b = append(m.b, "true"...)
	}
}

func (m *members) count(name string, v *int64) {
	if m.reading {
		if m.read(name) {
			m.err = decodeNumber(m.data, v)
		}
	} else if m.write(name, always) {
		m.b = strconv.AppendInt(m.b, *v, 10)
	}
}

func (m *members) milliseconds(name string, v *float64, keep bool) {
	if m.reading {
		if m.read(name) {
			m.err = decodeFloat(m.data, v)
		}
	} else if m.write(name, keep || *v != 0) {
		m.b = appendFloat(m.b, *v)
	}
}

func (m *members) time(name string, v *time.Time, keep bool) {
	if m.reading {
		if m.read(name) {
			m.err = v.UnmarshalJSON(m.data)
		}
	} else if m.write(name, keep || !v.IsZero()) {
		m.b = append(v.AppendFormat(append(m.b, '"'), time.RFC3339Nano), '"')
	}
}

func (m *members) raw(name string, v *json.RawMessage) {
	if m.reading {
		if m.read(name) {
			*v = m.data
		}
	} else if m.write(name, len(*v) > 0) {
		m.b = appendRaw(m.b, *v)
	}
}

func (m *members) bytes(name string, v *[]byte, keep bool) {
	if m.reading {
		if m.read(name) {
			m.err = json.Unmarshal(m.data, v)
		}
	} else if m.write(name, keep || len(*v) > 0) {
		m.b = append(base64.StdEncoding.AppendEncode(append(m.b, '"'), *v), '"')
	}
}

func (m *members) texts(name string, v *[]string) {
	if m.reading {
		if m.read(name) {
			m.err = decodeList(m.data, v, decodeString)
		}
	} else if m.write(name, len(*v) > 0) {
		m.b = appendList(m.b, *v, func(b []byte, s *string) []byte { return appendString(b, *s) })
	}
}

func (m *members) tries(name string, v *[]Try) {
	if m.reading {
		if m.read(name) {
			m.err = decodeList(m.data, v, m.try)
		}
	} else if m.write(name, len(*v) > 0) {
		m.b = appendList(m.b, *v, func(b []byte, t *Try) []byte {
			m.b = b
			m.append(t)
			return m.b
		})
	}
}

// try reads an item of tries, which null leaves empty.
func (m *members) try(data []byte, t *Try) error {
	if data[0] == 'n' {
		return nil
	}
	return m.within(data, t)
}

func (m *members) marks(name string, v *[]FrameMark) {
	if m.reading {
		if m.read(name) {
			m.err = json.Unmarshal(m.data, v)
		}
	} else if m.write(name, always) {
		m.b = appendList(m.b, *v, appendFrameMark)
	}
}

func (m *members) usage(name string, v **Usage) { nested(m, name, v) }

func (m *members) cost(name string, v **Cost) { nested(m, name, v) }

func (m *members) events(name string, v **EventLog) { nested(m, name, v) }

// nested visits a member that is a record itself, or null.
func nested[T any, R interface {
	*T
	record
}](m *members, name string, v *R) {
	if m.reading {
		if m.read(name) {
			if *v = nil; m.data[0] != 'n' {
				*v = new(T)
				m.err = m.within(m.data, *v)
			}
		}
	} else if m.write(name, *v != nil) {
		m.append(*v)
	}
}

func (m *members) money(name string, v *Money) {
	if m.reading {
		if m.read(name) {
			m.err = decodeMoney(m.data, v)
		}
	} else if m.write(name, always) {
		m.b = v.append(m.b)
	}
}
