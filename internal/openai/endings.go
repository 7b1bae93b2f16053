package openai

import "slices"

// Endings follows which choices of an answer have their finish_reason.
type Endings struct {
	reasons []string // by choice index; empty while the choice goes on
	seen    []bool
}

// maxChoices bounds the choice indexes an upstream can make the pipeline remember.
const maxChoices = 1024

// Add notes a chunk.
func (e *Endings) Add(c *Chunk) {
	for i := range c.Choices {
		o := &c.Choices[i]
		if o.Index < 0 || o.Index >= maxChoices {
			continue
		}
		for len(e.reasons) <= o.Index {
			e.reasons, e.seen = append(e.reasons, ""), append(e.seen, false)
		}
		e.seen[o.Index] = true
		if o.Finish != "" {
			e.reasons[o.Index] = o.Finish
		}
	}
}

// Started reports whether any choice was seen.
func (e *Endings) Started() bool { return len(e.seen) > 0 }

// Whole reports whether at least n choices were seen and each of them has ended.
func (e *Endings) Whole(n int) bool {
	if len(e.reasons) == 0 || len(e.reasons) < n {
		return false
	}
	return !slices.Contains(e.reasons, "")
}

// Reasons lists the finish reasons by choice; one that goes on is empty.
func (e *Endings) Reasons() []string { return e.reasons }
