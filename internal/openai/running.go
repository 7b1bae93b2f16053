package openai

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Running is what a server tells with a chunk so that the answer can go on elsewhere.
type Running struct {
	TokenIDs string // that the chunk was decoded from, separated by commas
	Prompt   string // those of the prompt, in the first chunk
	Usage    string // so far, as JSON; of a chunk with choices only

	Vocabulary string // whose ids they are; set by whoever knows
}

// Running reads it; what is no list of token ids counts as none.
func (c *Chunk) Running() (r Running) {
	r.Prompt = tokenList(c.Prompt)
	if len(c.Choices) == 1 {
		r.TokenIDs, r.Usage = tokenList(c.Choices[0].TokenIDs), c.Usage
	}
	return r
}

// tokenList is a JSON array of token ids without its brackets.
func tokenList(array string) string {
	if len(array) < len("[]") {
		return ""
	}
	list := array[1 : len(array)-1]
	if strings.ContainsAny(list, " \t\r\n") {
		list = strings.Join(strings.Fields(strings.ReplaceAll(list, ",", " ")), ",")
	}
	for i := range len(list) {
		if c := list[i]; c != ',' && (c < '0' || c > '9') {
			return ""
		}
	}
	return list
}

// dropRunning removes what Running reads.
func (m *Mender) dropRunning(data []byte, c *Chunk) {
	drop := [...]member{c.prompt, c.usage, {}}
	if len(c.Choices) == 0 {
		drop[1] = member{} // that is the usage of the whole
	} else {
		drop[2] = c.Choices[0].tokens
	}
	slices.SortFunc(drop[:], func(a, b member) int { return cmp.Compare(a.key, b.key) })
	for i, at := range drop[:] { // not a copy: neighbours change
		if !at.present() {
			continue
		}
		if i+1 < len(drop) && len(bytes.Trim(data[at.end:drop[i+1].key], ", \t\r\n")) == 0 {
			drop[i+1].key = at.key // neighbours share a comma
			continue
		}
		start, end := memberSpan(data, at)
		m.edit(start, end, "")
	}
}
