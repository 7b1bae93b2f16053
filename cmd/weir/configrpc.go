package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/weir-llm/weir/inference/rpc"
	"github.com/weir-llm/weir/inference/triton"
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

// checkRPC checks what is particular to backends over gRPC.
func checkRPC(at string, b Backend) *configError {
	if err := rpc.CheckURL(b.URL); err != nil {
		what, next, _ := strings.Cut(err.Error(), ": ")
		return problem(join(at, "url"), next, "%q %s", withoutUser(b.URL), what)
	}
	if b.CA != "" && !strings.HasPrefix(b.URL, rpc.SchemeTLS+"://") {
		return problem(join(at, "ca"), "write the url with "+rpc.SchemeTLS+"://, or remove it", "it is for TLS, which the url does not ask for")
	}
	foreign := map[string]bool{
		"require_finish_reason": b.RequireFinishReason != nil, "max_completion_tokens": b.MaxCompletionTokens,
		"anthropic_version": b.AnthropicVersion != "", "echo": b.Echo != (Echo{}),
		"max_tokens": b.Protocol == "grpc" && b.MaxTokens != 0, "template": b.Protocol == "grpc" && b.Template != "",
	}
	for _, key := range slices.Sorted(maps.Keys(foreign)) {
		if foreign[key] {
			return problem(join(at, key), "remove it", "it means nothing to a %s backend", b.Protocol)
		}
	}
	if triton.Template(b.Template).Validate() != nil {
		return problem(join(at, "template"), "use "+either(triton.Templates()), "%q is not known", b.Template)
	}
	return checkOllama(at, b)
}
