package openai

import "strconv"

// responsesInput checks the input of a Responses request: a text, or a list of items.
func (p *parser) responsesInput() error {
	switch p.kind() {
	case '"':
		return p.skip()
	case '[':
	default:
		if err := p.skip(); err != nil {
			return err
		}
		return invalid("input", "must be a string or an array of items")
	}
	count := 0
	err := p.array(func() error {
		i := count
		count++
		object := p.kind() == '{'
		if err := p.skip(); err != nil {
			return err
		}
		if !object {
			return invalid("input["+strconv.Itoa(i)+"]", "must be an object such as {\"role\": \"user\", \"content\": \"…\"}")
		}
		return nil
	})
	if err == nil && count == 0 {
		return missing("input", "it is empty: send at least one item")
	}
	return err
}
