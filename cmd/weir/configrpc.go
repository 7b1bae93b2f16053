package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/weir-llm/weir/inference/rpc"
)

// protocols are what a backend may speak.
func protocols() []string { return []string{"openai", "anthropic", "ollama", "grpc", "triton", "echo"} }

// overGRPC reports whether a protocol runs over gRPC.
func overGRPC(protocol string) bool { return protocol == "grpc" || protocol == "triton" }

// either lists alternatives as a sentence does.
func either(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// checkRPC checks a backend that is called over gRPC.
func checkRPC(f *findings, at string, b Backend) {
	if err := rpc.CheckURL(b.URL); err != nil {
		what, next, _ := strings.Cut(err.Error(), ": ")
		f.wrong(join(at, "url"), next, "%q %s", withoutUser(b.URL), what)
	} else {
		f.when(b.CA != "" && !strings.HasPrefix(b.URL, rpc.SchemeTLS+"://"), join(at, "ca"), "write the url with "+rpc.SchemeTLS+"://, or remove it", "it is for TLS, which the url does not ask for")
	}
	foreign := map[string]bool{
		"require_finish_reason": b.RequireFinishReason != nil, "max_completion_tokens": b.MaxCompletionTokens,
		"anthropic_version": b.AnthropicVersion != "", "echo": b.Echo != (Echo{}),
		"max_tokens": b.Protocol == "grpc" && b.MaxTokens != 0, "template": b.Protocol == "grpc" && b.Template != "",
	}
	for _, key := range slices.Sorted(maps.Keys(foreign)) {
		f.when(foreign[key], join(at, key), "remove it", "it means nothing to a %s backend", b.Protocol)
	}
	f.when(b.Proxy != "" || b.H2C, at, "remove proxy and h2c", "a backend over gRPC is connected to directly, over HTTP/2")
	checkOllama(f, at, b)
	checkContinue(f, at, b)
}
