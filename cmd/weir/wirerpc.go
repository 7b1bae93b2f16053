package main

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/upstream"
)

// newRPCBackend makes a backend over gRPC.
func newRPCBackend(b Backend, timeouts inference.Timeouts, addresses upstream.Addresses) (inference.Backend, error) {
	return backendv1.New(backendv1.Config{
		Name: b.Name, URL: b.URL, CA: b.CA, APIKey: b.APIKey, Model: b.Model,
		Deterministic: b.Deterministic != nil && *b.Deterministic, Timeouts: timeouts, Addresses: addresses,
	})
}
