package main

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/inference/upstream"
	dialect "github.com/weir-llm/weir/internal/ollama"
)

// checkOllama checks what only an ollama backend has, and that an ollama backend has nothing that means nothing to it.
func checkOllama(at string, b Backend) *configError {
	if b.Protocol != "ollama" {
		switch {
		case b.KeepAlive != "":
			return problem(join(at, "keep_alive"), "remove it, or set protocol: ollama", "only an ollama backend has it")
		case b.NumCtx != 0:
			return problem(join(at, "num_ctx"), "remove it, or set protocol: ollama", "only an ollama backend has it")
		}
		return nil
	}
	switch {
	case b.RequireFinishReason != nil:
		return problem(join(at, "require_finish_reason"), "remove it", "it means nothing to an ollama backend, whose answers say that they are done")
	case ollama.CheckURL(b.URL) != nil:
		return problem(join(at, "url"), "write the server's address alone, such as http://127.0.0.1:11434; or set protocol: openai for its /v1", "%q is not the address of Ollama's own API", withoutUser(b.URL))
	case b.NumCtx < 0:
		return problem(join(at, "num_ctx"), "use a number from 1, or leave it out for the server's own", "%d is out of range", b.NumCtx)
	case ollamaPolicy(b).Validate() != nil:
		return problem(join(at, "keep_alive"), "write a duration such as 10m, 0 to unload at once, or -1 to keep for ever", "%q is no duration", b.KeepAlive)
	}
	return nil
}

func ollamaPolicy(b Backend) dialect.Policy {
	return dialect.Policy{KeepAlive: b.KeepAlive, NumCtx: b.NumCtx}
}

func newOllama(b Backend, timeouts inference.Timeouts, connection upstream.Connection) (inference.Backend, error) {
	return ollama.New(ollama.Config{
		Name: b.Name, URL: b.URL, APIKey: b.APIKey, Model: b.Model, MaxInFlight: maxInFlight(b),
		Deterministic: b.Deterministic != nil && *b.Deterministic, Continue: b.continuation(), Policy: ollamaPolicy(b), Timeouts: timeouts, Connection: connection,
	})
}
