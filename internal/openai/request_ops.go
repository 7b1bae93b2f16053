package openai

import (
	"strconv"

	"github.com/weir-llm/weir/schemas"
)

// shape is what tells one op's body from another's.
type shape struct {
	input   string                         // the member that holds the input, which every body has
	check   func(*parser) error            // reads the value of input
	members map[string]func(*parser) error // what else only this op checks, by name; each reads the value
	unary   bool                           // there is no stream of it
}

// shapeOf gives the shape of a body. It makes nothing: a body is parsed at every door and stage.
func shapeOf(op schemas.Op) (*shape, error) {
	switch op {
	case schemas.OpChat:
		return chatShape, nil
	case schemas.OpCompletion:
		return completionShape, nil
	case schemas.OpEmbedding:
		return embeddingShape, nil
	case schemas.OpResponses:
		return responsesShape, nil
	}
	return nil, schemas.Errorf(schemas.CodeUnsupported, "operation %q is not available: use %q, %q, %q or %q",
		op, schemas.OpChat, schemas.OpCompletion, schemas.OpEmbedding, schemas.OpResponses)
}

// The shapes are shared and never changed.
var (
	chatShape       = &shape{input: "messages", check: (*parser).messages}
	completionShape = &shape{input: "prompt", check: (*parser).prompt}
	responsesShape  = &shape{input: "input", check: (*parser).responsesInput}
	embeddingShape  = &shape{input: "input", check: (*parser).texts, unary: true, members: map[string]func(*parser) error{
		"dimensions":      (*parser).dimensions,
		"encoding_format": (*parser).encodingFormat,
	}}
)

// prompt reads the prompt of a completion: a text, the tokens of one, or a list of either. Null is the empty text.
func (p *parser) prompt() (err error) {
	if p.kind() == 'n' {
		return p.skip()
	}
	p.inputs, err = p.inputList("prompt", false)
	return err
}

// texts reads the input of an embedding: a text, the tokens of one, or a list of either. Some models take images, as
// objects in the list, which are theirs to judge.
func (p *parser) texts() error {
	_, err := p.inputList("input", true)
	return err
}

// inputList reads one input or a list of them, and tells how many they are.
func (p *parser) inputList(param string, objects bool) (count int, err error) {
	switch p.kind() {
	case '"':
		return 1, p.skip()
	case '[':
	default:
		if err := p.skip(); err != nil {
			return 0, err
		}
		return 0, invalid(param, "must be a string, an array of strings, or tokens as an array of integers")
	}
	tokens := 0
	err = p.array(func() error {
		element := param + "[" + strconv.Itoa(count) + "]"
		switch kind := p.kind(); {
		case kind == '0' && count == tokens: // tokens, from the first element on
			tokens++
			count++
			return p.tokenID(param)
		case tokens > 0:
		case kind == '[':
			count++
			return p.tokens(element)
		case kind == '"', kind == '{' && objects:
			count++
			return p.skip()
		}
		if err := p.skip(); err != nil {
			return err
		}
		return invalid(element, "must be a string, or tokens as an array of integers, like the elements before it")
	})
	switch {
	case err != nil:
		return 0, err
	case count == 0:
		return 0, missing(param, "it is empty: send at least one text")
	case tokens > 0:
		return 1, nil
	case count > MaxInputs:
		return 0, invalid(param, "has %d elements: at most %d are allowed in one request", count, MaxInputs)
	}
	return count, nil
}

// tokens reads a text that was turned into tokens.
func (p *parser) tokens(param string) error {
	any := false
	err := p.array(func() error {
		any = true
		return p.tokenID(param)
	})
	if err == nil && !any {
		return invalid(param, "is empty: send the tokens of a text, or a string")
	}
	return err
}

func (p *parser) tokenID(param string) error {
	n, ok, err := p.integer()
	if err == nil && (!ok || n < 0) {
		return invalid(param, "holds a token that is no integer from 0")
	}
	return err
}

func (p *parser) dimensions() error {
	n, ok, err := p.integer()
	if err != nil || p.wasNull {
		return err
	}
	if !ok || n < 1 {
		return invalid("dimensions", "must be an integer of at least 1; leave it out for the model's own number")
	}
	return nil
}

func (p *parser) encodingFormat() error {
	if p.kind() == 'n' {
		return p.skip()
	}
	format, ok, err := p.text()
	if err == nil && (!ok || string(format) != EncodingFloat && string(format) != EncodingBase64) {
		return invalid("encoding_format", "must be %q or %q", EncodingFloat, EncodingBase64)
	}
	return err
}
