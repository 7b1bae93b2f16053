package main

import (
	"fmt"
	"slices"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// Midstream says what is done about an answer that was cut after its caller has seen some of it.
type Midstream struct {
	Order []string `yaml:"order,omitempty" enum:"continue,splice,error" doc:"What is tried, in this order: continue, where a backend has continue; splice, where one is deterministic and temperature is 0; error, which ends the answer and the list. Default: continue, splice, error."`
	Max   int      `yaml:"max,omitempty" min:"1" max:"100" doc:"How often one worker goes on with one answer; default 2."`
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

func checkMidstream(f *findings, key string, m Midstream) {
	const next = "use continue, splice and error, each once and error last"
	f.when(m.Order != nil && len(m.Order) == 0, join(key, "order"), "write [error] to try nothing, or leave it out for the default", "the list is empty")
	for i, step := range m.Order {
		at := fmt.Sprintf("%s[%d]", join(key, "order"), i)
		f.when(slices.Contains(m.Order[:i], step), at, next, "%q is there twice", step)
		f.when(step == midstreamError && i < len(m.Order)-1, at, next, "nothing comes after error")
	}
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

func checkContinue(f *findings, at string, b Backend) {
	speaks := func(protocols ...string) bool { return slices.Contains(protocols, b.Protocol) }
	f.when(b.Continue == "tokens" && !speaks("openai", "grpc"), join(at, "continue"),
		"use prefill, or set protocol: openai or grpc", "only openai and grpc backends go on from token ids")
	f.when(b.Continue == "prefill" && speaks("triton"), join(at, "continue"), "remove it", "a triton backend does not go on with an answer")
	f.when(b.OnMalformed != "" && !speaks("openai", "anthropic"), join(at, "on_malformed"), "remove it", "only openai and anthropic backends have it")
}

func (b Backend) skipsMalformed() bool { return b.OnMalformed == "skip" }
