package main

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/triton"
	"github.com/weir-llm/weir/inference/upstream"
)

// newRPCBackend makes a backend over gRPC.
func newRPCBackend(b Backend, timeouts inference.Timeouts, addresses upstream.Addresses) (inference.Backend, error) {
	deterministic := b.Deterministic != nil && *b.Deterministic
	if b.Protocol == "triton" {
		return triton.New(triton.Config{
			Name: b.Name, URL: b.URL, CA: b.CA, APIKey: b.APIKey, Model: b.Model, Template: triton.Template(b.Template), MaxTokens: b.MaxTokens,
			Deterministic: deterministic, Timeouts: timeouts, Addresses: addresses,
		})
	}
	return backendv1.New(backendv1.Config{
		Name: b.Name, URL: b.URL, CA: b.CA, APIKey: b.APIKey, Model: b.Model,
		Deterministic: deterministic, Continue: b.continuation(), Timeouts: timeouts, Addresses: addresses,
	})
}
