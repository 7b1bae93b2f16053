package openai

import (
	"github.com/weir-llm/weir/schemas"
)

// MaxDepth is how deep the JSON of a request may nest.
const MaxDepth = 64

// MaxMessages and MaxTools are how many messages, and how many tools or functions, one request may have.
const (
	MaxMessages = 2048
	MaxTools    = 512
)

// MaxInputs is how many prompts or inputs one request may hold, the limit of OpenAI itself.
const MaxInputs = 2048

// Policy is what the operator allows in a request. The zero value is the default.
type Policy struct {
	MaxChoices int // most answers (n) in one request, or to one prompt; 0 = 128, the limit of OpenAI itself
}

func (p Policy) maxChoices() int {
	if p.MaxChoices == 0 {
		return 128
	}
	return p.MaxChoices
}

// Request is what the pipeline needs to know of a request body.
type Request struct {
	Model        string
	Stream       bool
	IncludeUsage bool // the caller asked for the usage chunk
	N            int  // answers wanted, at least 1; of a completion n for each prompt
	MaxTokens    int  // 0 = the caller set no limit
	Temperature  *float64
	Tools        bool // the model may call tools
	Structured   bool // the answer is bound to a format
	LogProbs     bool

	// Body is the caller's body without the members that a tenant must not control; otherwise byte for byte.
	Body []byte
}

// Greedy reports whether a deterministic backend gives the same answer again.
func (r *Request) Greedy() bool { return r.Temperature != nil && *r.Temperature == 0 }

// Continuable reports whether a backend may go on from the text so far: tools, formats, several answers and log
// probabilities hold state that the text does not show.
func (r *Request) Continuable() bool { return !r.Tools && !r.Structured && !r.LogProbs && r.N == 1 }

// ParseRequest validates the body of an op and reads what the pipeline needs, in one pass. It checks what would otherwise
// be ambiguous or unsafe on the way and leaves the rest to the model. The error is a [schemas.Error]. The Request shares
// body unless members were removed.
func ParseRequest(op schemas.Op, body []byte, policy Policy) (*Request, error) {
	shape, err := shapeOf(op)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, schemas.Errorf(schemas.CodeInvalidJSON, "the request body is empty: send a JSON object with model and %s", shape.input)
	}
	if len(body) > schemas.MaxBodyBytes {
		return nil, schemas.Errorf(schemas.CodeRequestTooLarge, "the request body has %d bytes: at most %d are allowed", len(body), schemas.MaxBodyBytes)
	}
	s := newScanner(body)
	defer s.release()
	p := parser{scanner: s, shape: shape, policy: policy, request: Request{N: 1}}
	if err := p.parse(); err != nil {
		return nil, err
	}
	request := p.request
	request.Body = p.strip(body)
	return &request, nil
}
