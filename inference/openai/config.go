package openai

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
)

// Config describes one model server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; up to and without /chat/completions, such as http://10.0.0.7:8000/v1
	APIKey inference.Secret // optional; sent as a bearer token

	// Model is the server's name for the model, when it differs from the public one. Empty sends the public name.
	Model string

	// MaxInFlight is how many calls run at once; the caller keeps to it, and the connection pool is sized for it. Default 32.
	MaxInFlight int

	// Deterministic is the operator's word that temperature 0 gives the same text again; see [inference.Capabilities].
	Deterministic bool

	// Continue is how the server goes on with an answer that was cut: by [inference.ContinueText] it takes a last message of
	// the assistant with add_generation_prompt and continue_final_message, as vLLM and llama.cpp do; by
	// [inference.ContinueTokens] it also tells token ids (return_token_ids) and takes them as the prompt of a completion, as
	// vLLM does. Default: it does not.
	Continue inference.Continuation

	SkipMalformed bool // leave events out that cannot be read, instead of failing the call

	// RequireFinishReason false accepts [DONE] alone as the end of an answer, for servers that never send a finish_reason.
	// Default true.
	RequireFinishReason *bool

	// MaxCompletionTokens sends a limit that a caller gave as max_tokens as max_completion_tokens, for servers that refuse the
	// older name.
	MaxCompletionTokens bool

	Timeouts inference.Timeouts
	Headers  map[string]string // more headers for every call, such as OpenAI-Organization

	Connection upstream.Connection
}

func (c Config) withDefaults() Config {
	if c.RequireFinishReason == nil {
		c.RequireFinishReason = new(true)
	}
	return c
}

func (c Config) upstream() upstream.Config {
	return upstream.Config{Name: c.Name, URL: c.URL, MaxInFlight: c.MaxInFlight, Timeouts: c.Timeouts, Headers: c.Headers, Connection: c.Connection, SkipMalformed: c.SkipMalformed}
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error { return c.upstream().WithDefaults().Validate() }
