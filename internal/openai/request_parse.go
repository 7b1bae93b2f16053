package openai

import (
	"bytes"
	"strconv"

	"github.com/weir-llm/weir/schemas"
)

// parser reads one request body.
type parser struct {
	*scanner
	shape   *shape
	policy  Policy
	request Request

	input         bool // the input member was there
	inputs        int  // prompts of a completion
	streamOptions bool
	stripped      int
}

func (p *parser) parse() error {
	if p.kind() != '{' {
		if err := p.skip(); err != nil {
			return err
		}
		return schemas.Errorf(schemas.CodeInvalidJSON, "the request body is not a JSON object: send an object with model and %s", p.shape.input)
	}
	if err := p.object(p.member); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	switch {
	case p.request.Model == "":
		return missing("model", "name one of the models that GET /v1/models lists")
	case !p.input:
		return missing(p.shape.input, "send the input as this member")
	case p.shape.limit && p.request.MaxTokens == 0:
		return missing("max_tokens", "say how long the answer may be")
	case p.request.Stream && p.shape.unary:
		return invalid("stream", "is not possible here: the answer comes in one piece; remove it")
	case p.streamOptions && !p.request.Stream:
		return invalid("stream_options", "is only allowed with \"stream\": true; remove it or stream")
	}
	return p.multiply()
}

// multiply makes N the answers to all prompts together.
func (p *parser) multiply() error {
	if p.inputs > 1 {
		p.request.N *= p.inputs
	}
	if p.request.N > maxChoices {
		return invalid(p.shape.input, "asks for %d answers in all: at most %d are allowed in one request", p.request.N, maxChoices)
	}
	return nil
}

func (p *parser) member(name []byte) error {
	s := span{start: p.nameStart, strip: controlled(name)}
	if s.strip {
		p.stripped++
	}
	if err := p.value(name); err != nil {
		return err
	}
	s.end = p.offset()
	p.members = append(p.members, s)
	return nil
}

func (p *parser) value(name []byte) error {
	r := &p.request
	if string(name) == p.shape.input {
		p.input = true
		return p.shape.check(p)
	}
	if check := p.shape.members[string(name)]; check != nil {
		return check(p)
	}
	switch string(name) {
	case "model":
		return p.model()
	case "stream":
		return p.bool("stream", &r.Stream)
	case "stream_options":
		return p.options()
	case "n":
		return p.choices()
	case "max_tokens", "max_completion_tokens":
		return p.maxTokens(string(name))
	case "temperature":
		return p.number("temperature", &r.Temperature)
	case "tools", "functions":
		return p.tools(string(name))
	case "response_format":
		return p.format()
	case "output_config", "output_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema":
		return p.present(&r.Structured)
	case "logprobs", "top_logprobs":
		return p.present(&r.LogProbs)
	}
	if plain := lookalike(name, p.shape.input); plain != "" {
		return invalid(printable(name), "differs from %q only in case, and servers disagree on which counts; write it as %q or remove it", plain, plain)
	}
	return p.skip()
}

func (p *parser) model() error {
	model, ok, err := p.text()
	switch {
	case err != nil:
		return err
	case !ok:
		return invalid("model", "must be a string; name one of the models that GET /v1/models lists")
	case len(model) == 0:
		return missing("model", "it is empty: name one of the models that GET /v1/models lists")
	}
	p.request.Model = string(model)
	return nil
}

func (p *parser) options() error {
	if p.kind() == 'n' {
		return p.skip()
	}
	if p.kind() != '{' {
		return invalid("stream_options", "must be an object such as {\"include_usage\": true}")
	}
	p.streamOptions = true
	return p.object(func(name []byte) error {
		if string(name) == "include_usage" {
			return p.bool("stream_options.include_usage", &p.request.IncludeUsage)
		}
		return p.skip()
	})
}

func (p *parser) choices() error {
	n, ok, err := p.integer()
	if err != nil || p.wasNull {
		return err
	}
	if limit := p.policy.maxChoices(); !ok || n < 1 || n > limit {
		return invalid("n", "must be an integer from 1 to %d", limit)
	}
	p.request.N = n
	return nil
}

// maxTokens keeps the newer of the two names when both are there.
func (p *parser) maxTokens(name string) error {
	n, ok, err := p.integer()
	if err != nil || p.wasNull {
		return err
	}
	if !ok || n < 1 {
		return invalid(name, "must be an integer of at least 1; leave it out for no limit")
	}
	if name == "max_completion_tokens" || p.request.MaxTokens == 0 {
		p.request.MaxTokens = n
	}
	return nil
}

// present notes whether a value asks for something: not null, false, 0, "", [] or {}.
func (p *parser) present(to *bool) error {
	switch p.kind() {
	case '[', '{':
		before := p.offset()
		if err := p.skip(); err != nil {
			return err
		}
		*to = *to || len(bytes.Trim(p.body[before:p.offset()], " \t\r\n:[]{}")) > 0
		return nil
	}
	raw, err := p.raw()
	if err != nil {
		return err
	}
	switch string(raw) {
	case "null", "false", "0", `""`:
	default:
		*to = true
	}
	return nil
}

// tools notes whether there are any, and bounds how many.
func (p *parser) tools(name string) error {
	if p.kind() != '[' {
		return p.present(&p.request.Tools)
	}
	count := 0
	err := p.array(func() error {
		if count++; count > MaxTools {
			return tooMany(name, MaxTools)
		}
		return p.skip()
	})
	p.request.Tools = p.request.Tools || count > 0
	return err
}

func tooMany(param string, limit int) error {
	return invalid(param, "has more than %d elements, as many as are allowed: send fewer", limit)
}

// format notes a response format other than text.
func (p *parser) format() error {
	if p.kind() != '{' {
		return p.present(&p.request.Structured)
	}
	text := false
	err := p.object(func(name []byte) error {
		if string(name) != "type" {
			return p.skip()
		}
		kind, _, err := p.text()
		text = string(kind) == "text"
		return err
	})
	p.request.Structured = p.request.Structured || !text
	return err
}

func (p *parser) messages() error {
	if p.kind() != '[' {
		return invalid("messages", "must be an array of objects with a role")
	}
	count := 0
	err := p.array(func() error {
		i := count
		if count++; count > MaxMessages {
			return tooMany("messages", MaxMessages)
		}
		return p.message(i)
	})
	if err == nil && count == 0 {
		return missing("messages", "it is empty: send at least one message")
	}
	return err
}

func (p *parser) message(i int) error {
	if p.kind() != '{' {
		if err := p.skip(); err != nil {
			return err
		}
		return invalid(at(i, ""), "must be an object with a role")
	}
	role := false
	err := p.object(func(name []byte) error {
		if string(name) != "role" {
			return p.skip()
		}
		role = true
		value, ok, err := p.text()
		if err == nil && (!ok || len(value) == 0) {
			return invalid(at(i, ".role"), "must be a string such as \"user\"")
		}
		return err
	})
	if err == nil && !role {
		return missing(at(i, ".role"), "each message needs a role such as \"user\"")
	}
	return err
}

func at(i int, member string) string { return "messages[" + strconv.Itoa(i) + "]" + member }

// strip returns body without the members that a tenant must not control, and every other byte as it is.
func (p *parser) strip(body []byte) []byte {
	if p.stripped == 0 {
		return body
	}
	out := make([]byte, 0, len(body))
	out = append(out, body[:p.members[0].start]...)
	kept := false
	for i, m := range p.members {
		if m.strip {
			continue
		}
		if kept {
			out = append(out, body[p.members[i-1].end:m.start]...)
		}
		out, kept = append(out, body[m.start:m.end]...), true
	}
	return append(out, body[p.members[len(p.members)-1].end:]...)
}

// controlled reports whether a member belongs to the operator: it would choose a server's schedule, cache, template or
// price tier, or name another request. Servers written in Go match names without regard to case.
func controlled(name []byte) bool {
	for _, member := range [...]string{
		"priority", "request_id", "cache_salt", "kv_transfer_params", "session_id", "chat_template", "return_token_ids", "service_tier",
	} {
		if len(name) >= len(member) && bytes.EqualFold(name, []byte(member)) {
			return true
		}
	}
	return false
}

// lookalike returns the checked member that name equals but for case: a server that ignores case would take its value
// instead of the one that was checked, and so run another model than the caller may use.
func lookalike(name []byte, input string) string {
	for _, member := range [...]string{"model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", input} {
		if len(name) >= len(member) && bytes.EqualFold(name, []byte(member)) {
			return member
		}
	}
	return ""
}
