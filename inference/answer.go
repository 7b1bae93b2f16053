package inference

import (
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// answer is what is known of an answer once it is whole.
type answer struct {
	finishes []string // by choice
	usage    *schemas.Usage
	model    string // what the backend says answered
	response []byte // a whole unary response
	tokens   int64  // events that held some of the answer
	bytes    int64  // of its events
	leftOut  int    // events that could not be read
}

// note learns from an event.
func (a *answer) note(c *openai.Chunk) {
	for i := range c.Choices {
		choice := &c.Choices[i]
		if choice.Finish == "" || choice.Index < 0 || choice.Index > maxChoices {
			continue
		}
		for len(a.finishes) <= choice.Index {
			a.finishes = append(a.finishes, "")
		}
		a.finishes[choice.Index] = choice.Finish
	}
	if speaks(c) {
		a.tokens++
	}
	if c.Usage != "" {
		a.usage = c.ParseUsage()
	}
	if c.Model != "" {
		a.model = c.Model
	}
}

// maxChoices bounds what an upstream's index may make us allocate.
const maxChoices = 1024
