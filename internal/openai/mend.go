package openai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Mender changes the chunks of one stream where clients would break on them or where they answer what the caller did not
// ask. A chunk that needs nothing passes as it is. The zero value mends only what breaks clients. It is owned by one
// goroutine.
type Mender struct {
	DropUsage bool    // the caller did not ask for the usage-only chunk
	DropRun   bool    // nor for what a [Running] is told with
	Model     string  // the model's public name, put into each chunk; empty leaves what the upstream says
	As        *Origin // the answer began under another upstream id: go on as that one, without a second opening chunk

	Body    []byte // of the request, which says whether a tool was forced; looked at when one was called
	Request string // its id, of which calls of tools get theirs that have none

	edits []edit
	buf   []byte
	line  bytes.Buffer
	model string // Model as JSON
	begun []bool // by choice: its first delta has passed
	tools map[int]*toolCalls
	said  bool // the edits change what the chunk says
}

// edit replaces data[start:end].
type edit struct {
	start, end int
	text       string
}

// ToUTF8 returns data with invalid bytes replaced, as every client's decoder would, and data itself when there are none.
func ToUTF8(data []byte) []byte {
	if utf8.Valid(data) {
		return data
	}
	return bytes.ToValidUTF8(data, []byte("\uFFFD"))
}

// Mend returns data, which c was read from, as one line fit for a client, or false when the caller must not see it. The
// result is data itself or valid until the next call.
func (m *Mender) Mend(data []byte, c *Chunk) ([]byte, bool) {
	if m.DropUsage && c.UsageOnly() || m.As != nil && c.RoleOnly() {
		return nil, false
	}
	m.edits, m.said = m.edits[:0], false
	if m.DropRun {
		m.dropRunning(data, c)
	}
	m.fixMembers(data, c)
	m.rename(c)
	m.addRoles(data, c)
	m.fixTools(data, c)
	m.fixReasons(data, c)
	data = m.mended(data)
	if m.said && c.Peek(data) != nil {
		return nil, false // unreachable: what was put in is valid
	}
	return data, true
}

// MendDocument is Mend for an answer that is no chunk and has no choices, such as embeddings.
func (m *Mender) MendDocument(data []byte, c *Chunk) []byte {
	m.edits = m.edits[:0]
	if c.error.present() && c.Error == "" {
		start, end := memberSpan(data, c.error)
		m.edit(start, end, "")
	}
	m.rename(c)
	return m.mended(data)
}

// mended is data with the edits, on one line.
func (m *Mender) mended(data []byte) []byte {
	data = bytes.TrimRight(data, " \t\r\n") // which most documents end with
	if len(m.edits) > 0 {
		data = m.apply(data)
	}
	if bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0 {
		data = m.compact(data)
	}
	return data
}

// fixMembers removes `"error":null`, which ends the stream in openai-go and loses text in the AI SDK, and adds the array
// choices, which clients index without looking.
func (m *Mender) fixMembers(data []byte, c *Chunk) {
	const none = `"choices":[]`
	emptyError := c.error.present() && c.Error == ""
	missing := !c.hasChoices && !c.choices.present()
	switch {
	case emptyError && missing:
		m.edit(c.error.key, c.error.end, none)
	case emptyError:
		start, end := memberSpan(data, c.error)
		m.edit(start, end, "")
	case missing:
		end := bytes.LastIndexByte(data, '}')
		text := "," + none
		if before := bytes.TrimRight(data[:end], " \t\r\n"); before[len(before)-1] == '{' {
			text = none
		}
		m.edit(end, end, text)
	}
	if !c.hasChoices && c.choices.present() {
		m.edit(c.choices.value, c.choices.end, "[]")
	}
}

// rename puts the public model name and, after a take-over, the first attempt's id and time into the chunk.
func (m *Mender) rename(c *Chunk) {
	if m.As != nil {
		m.replace(c.id, m.As.ID)
		m.replace(c.created, m.As.Created)
		m.replace(c.model, m.As.Model)
		return
	}
	if m.Model == "" || c.Model == m.Model {
		return
	}
	if m.model == "" {
		m.model = string(appendString(nil, m.Model))
	}
	m.replace(c.model, m.model)
}

func (m *Mender) replace(at member, text string) {
	if at.present() && text != "" && at.raw != text {
		m.edit(at.value, at.end, text)
	}
}

func (m *Mender) edit(start, end int, text string) { m.edits = append(m.edits, edit{start, end, text}) }

// apply carries the edits out into a buffer that is used again.
func (m *Mender) apply(data []byte) []byte {
	slices.SortStableFunc(m.edits, func(a, b edit) int { return a.start - b.start })
	m.buf = m.buf[:0]
	at := 0
	for _, e := range m.edits {
		if e.start < at { // a document with the same member twice
			continue
		}
		m.buf = append(append(m.buf, data[at:e.start]...), e.text...)
		at = e.end
	}
	m.buf = append(m.buf, data[at:]...)
	return m.buf
}

// compact makes one line of JSON that was written over several.
func (m *Mender) compact(data []byte) []byte {
	m.line.Reset()
	if json.Compact(&m.line, data) != nil {
		return data // unreachable: Peek has validated it
	}
	return m.line.Bytes()
}

// addRoles adds the role that some upstreams leave out of the first delta of a choice, without which the stream helper of
// openai for Node gives the whole answer up.
func (m *Mender) addRoles(data []byte, c *Chunk) {
	if m.As != nil {
		return // readers have the first delta
	}
	for i := range c.Choices {
		o := &c.Choices[i]
		if o.Index < 0 || o.Index >= maxChoices || o.Index < len(m.begun) && m.begun[o.Index] {
			continue
		}
		for len(m.begun) <= o.Index {
			m.begun = append(m.begun, false)
		}
		m.begun[o.Index] = o.text || o.Role != "" || m.addRole(data, c.choices, i)
	}
}

// addRole adds the role to the delta of the i-th choice, and reports whether there is one.
func (m *Mender) addRole(data []byte, choices member, i int) bool {
	delta := gjson.GetBytes(data[choices.value:choices.end], strconv.Itoa(i)+".delta")
	if !delta.IsObject() {
		return false
	}
	const role = `"assistant"`
	if given := delta.Get("role"); given.Exists() { // null, or no name
		start := choices.value + given.Index
		m.edit(start, start+len(given.Raw), role)
		return true
	}
	open := choices.value + delta.Index + 1
	comma := ","
	if strings.TrimSpace(delta.Raw[1:len(delta.Raw)-1]) == "" {
		comma = ""
	}
	m.edit(open, open, `"role":`+role+comma)
	return true
}
