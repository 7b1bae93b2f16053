package main

import (
	"slices"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// Midstream says what is done about an answer that was cut after its caller has seen some of it.
type Midstream struct {
	Order []string `yaml:"order,omitempty" doc:"What is tried, in this order: continue, where a backend has continue; splice, where one is deterministic and temperature is 0; error, which ends the answer and the list. Default: continue, splice, error."`
	Max   int      `yaml:"max,omitempty" doc:"How often one worker goes on with one answer; default 2."`
}

// midstreamError ends the order.
const midstreamError = "error"

func (m Midstream) policy() inference.Midstream {
	policy := inference.Midstream{Max: m.Max}
	for _, step := range m.Order {
		if policy.Order == nil {
			policy.Order = []schemas.Mode{}
		}
		if step != midstreamError {
			policy.Order = append(policy.Order, schemas.Mode(step))
		}
	}
	return policy
}

func checkMidstream(key string, m Midstream) *configError {
	const next = "use continue, splice and error, each once and error last"
	if m.Order != nil && len(m.Order) == 0 {
		return problem(join(key, "order"), "write [error] to try nothing, or leave it out for the default", "the list is empty")
	}
	for i, step := range m.Order {
		switch {
		case step != midstreamError && step != string(schemas.ModeContinue) && step != string(schemas.ModeSplice):
			return problem(join(key, "order"), next, "%q is not known", step)
		case slices.Contains(m.Order[:i], step):
			return problem(join(key, "order"), next, "%q is there twice", step)
		case step == midstreamError && i < len(m.Order)-1:
			return problem(join(key, "order"), next, "nothing comes after error")
		}
	}
	if m.Max < 0 {
		return problem(join(key, "max"), "use a number from 1, or order: [error] to try nothing", "%d is out of range", m.Max)
	}
	return nil
}

// continuation is how a backend goes on with an answer.
func (b Backend) continuation() inference.Continuation {
	switch {
	case b.Continue == "tokens":
		return inference.ContinueTokens
	case b.Continue == "prefill", b.Continue == "" && b.Protocol == "echo":
		return inference.ContinueText
	}
	return inference.ContinueNone
}

func checkContinue(at string, b Backend) *configError {
	switch {
	case b.Continue != "" && b.Continue != "none" && b.Continue != "prefill" && b.Continue != "tokens":
		return problem(join(at, "continue"), "use none, prefill or tokens", "%q is not known", b.Continue)
	case b.Continue == "tokens" && b.Protocol != "openai" && b.Protocol != "grpc":
		return problem(join(at, "continue"), "use prefill, or set protocol: openai or grpc", "only openai and grpc backends go on from token ids")
	case b.Continue == "prefill" && b.Protocol == "triton":
		return problem(join(at, "continue"), "remove it", "a triton backend does not go on with an answer")
	}
	return checkMalformed(at, b)
}

func (b Backend) skipsMalformed() bool { return b.OnMalformed == "skip" }

func checkMalformed(at string, b Backend) *configError {
	switch {
	case b.OnMalformed != "" && b.OnMalformed != "fail" && b.OnMalformed != "skip":
		return problem(join(at, "on_malformed"), "use fail or skip", "%q is not known", b.OnMalformed)
	case b.OnMalformed != "" && b.Protocol != "openai" && b.Protocol != "anthropic":
		return problem(join(at, "on_malformed"), "remove it", "only openai and anthropic backends have it")
	}
	return nil
}
