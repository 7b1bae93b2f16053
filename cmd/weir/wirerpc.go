package main

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
)

// newRPCBackend makes a backend over gRPC.
func newRPCBackend(b Backend, timeouts inference.Timeouts) (inference.Backend, error) {
	return backendv1.New(backendv1.Config{
		Name: b.Name, URL: b.URL, CA: b.CA, APIKey: b.APIKey, Model: b.Model,
		Deterministic: b.Deterministic != nil && *b.Deterministic, Timeouts: timeouts,
	})
}
