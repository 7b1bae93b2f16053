package main

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/inference/upstream"
	dialect "github.com/weir-llm/weir/internal/ollama"
)

// checkOllama checks what only an ollama backend has, and that an ollama backend has nothing that means nothing to it.
func checkOllama(f *findings, at string, b Backend) {
	if b.Protocol != "ollama" {
		f.when(b.KeepAlive != "", join(at, "keep_alive"), "remove it, or set protocol: ollama", "only an ollama backend has it")
		f.when(b.NumCtx != 0, join(at, "num_ctx"), "remove it, or set protocol: ollama", "only an ollama backend has it")
		return
	}
	f.when(b.RequireFinishReason != nil, join(at, "require_finish_reason"), "remove it", "it means nothing to an ollama backend, whose answers say that they are done")
	f.when(ollama.CheckURL(b.URL) != nil, join(at, "url"), "write the server's address alone, such as http://127.0.0.1:11434; or set protocol: openai for its /v1", "%q is not the address of Ollama's own API", withoutUser(b.URL))
	f.when(dialect.Policy{KeepAlive: b.KeepAlive}.Validate() != nil, join(at, "keep_alive"), "write a duration such as 10m, 0 to unload at once, or -1 to keep for ever", "%q is no duration", b.KeepAlive)
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
