package schemas

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
)

// members visits the members of a record: it writes each that has a value, or reads the one that is named. A method is
// called with the member's name, where its value is, and whether it is written even when it is zero.
type members struct {
	b []byte // what was written

	reading    bool
	name, data []byte // of the member to read
	found      bool
	err        error
}

const (
	always   = true
	optional = false
)

// read reports whether the visited member is the one to read.
func (m *members) read(name string) bool {
	if m.found || string(m.name) != name {
		return false
	}
	m.found = true
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
			m.err = decodeList(m.data, v, decodeTry)
		}
	} else if m.write(name, len(*v) > 0) {
		m.b = appendList(m.b, *v, func(b []byte, t *Try) []byte { return appendRecord(b, t) })
	}
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

func (m *members) usage(name string, v **Usage) {
	if m.reading {
		if m.read(name) {
			m.err = decodePointer(m.data, v)
		}
	} else if m.write(name, *v != nil) {
		m.b = appendRecord(m.b, *v)
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

func (m *members) cost(name string, v **Cost) {
	if m.reading {
		if m.read(name) {
			m.err = decodePointer(m.data, v)
		}
	} else if m.write(name, *v != nil) {
		m.b = appendRecord(m.b, *v)
	}
}

func (m *members) events(name string, v **EventLog) {
	if m.reading {
		if m.read(name) {
			m.err = decodePointer(m.data, v)
		}
	} else if m.write(name, *v != nil) {
		m.b = appendRecord(m.b, *v)
	}
}
