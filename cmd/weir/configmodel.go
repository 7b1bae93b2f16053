package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/schemas"
)

func (c *Config) checkModels(f *findings) {
	for _, name := range c.modelNames() {
		key := join("models", name)
		if _, err := schemas.EncodeModel(name); err != nil {
			f.wrong(key, "use a shorter name", "%s", schemas.AsError(err).Message)
		}
		c.Models[name].check(f, key)
		c.checkRecovery(f, key, name)
	}
}

func (m Model) check(f *findings, key string) {
	f.when(len(m.Backends) == 0, join(key, "backends"), "add one: - {name: mine, protocol: openai, url: http://host:8000/v1}", "the model has no backend")
	m.Timeouts.check(f, join(key, "timeouts"))
	checkBalance(f, key, m)
	checkMidstream(f, join(key, "midstream"), m.Midstream)
	names := map[string]bool{}
	for i, b := range m.Backends {
		at := fmt.Sprintf("%s.backends[%d]", key, i)
		if b.Name != "" {
			f.when(names[b.Name], join(at, "name"), "give each backend of a model its own name", "there is already a backend %q", b.Name)
		}
		names[b.Name] = true
		b.check(f, at)
	}
}

// check refuses a part of a call that would never be waited for.
func (t Timeouts) check(f *findings, key string) {
	total := Duration(t.config().WithDefaults().Total)
	for _, part := range []struct {
		name string
		time Duration
	}{{"connect", t.Connect}, {"first_token", t.FirstToken}, {"idle", t.Idle}} {
		f.when(part.time > total, join(key, part.name), "make it shorter, or total longer", "%s is longer than the whole answer may take, %s", part.time, total)
	}
}

func (b Backend) check(f *findings, at string) {
	f.when(b.Name == "", join(at, "name"), "name it: it is what results, logs and metrics show", "the backend has no name")
	unfit := strings.ContainsFunc(string(b.APIKey), func(r rune) bool { return r <= ' ' || r > '~' })
	f.when(unfit, join(at, "api_key"), "remove spaces and line breaks, which a file or a copy may have added", "it holds a character that no header can")
	switch {
	case b.Protocol == "":
		f.wrong(join(at, "protocol"), "use "+either(protocols()), "the backend has none")
	case !slices.Contains(protocols(), b.Protocol): // which was told, and nothing more can be said
	case overGRPC(b.Protocol):
		checkRPC(f, at, b)
	default:
		b.checkHTTP(f, at)
	}
}

// checkHTTP checks a backend that is not called over gRPC.
func (b Backend) checkHTTP(f *findings, at string) {
	is := func(protocol string) bool { return b.Protocol == protocol }
	only := func(given bool, name, protocol, who string) {
		f.when(given && !is(protocol), join(at, name), "remove it, or set protocol: "+protocol, "only %s backend has it", who)
	}
	switch {
	case is("echo"):
		f.when(b.URL != "", join(at, "url"), "remove it, or set protocol: openai", "an echo backend calls nobody")
	case !is("ollama"):
		f.when(!webURL(b.URL), join(at, "url"), "write the base URL with the version, such as https://api.openai.com/v1", "%q is not a URL", withoutUser(b.URL))
	}
	only(b.MaxCompletionTokens, "max_completion_tokens", "openai", "an openai")
	only(b.MaxTokens != 0, "max_tokens", "anthropic", "an anthropic or triton")
	only(b.Template != "", "template", "triton", "a triton")
	only(b.AnthropicVersion != "", "anthropic_version", "anthropic", "an anthropic")
	only(b.Echo != (Echo{}), "echo", "echo", "an echo")
	f.when(is("anthropic") && anthropic.CheckVersion(b.AnthropicVersion) != nil, join(at, "anthropic_version"),
		"use "+anthropic.Version2023+" or "+anthropic.Version2026, "%q is not a version", b.AnthropicVersion)
	f.when(is("anthropic") && b.RequireFinishReason != nil, join(at, "require_finish_reason"), "remove it", "it means nothing to an anthropic backend")
	checkOllama(f, at, b)
	checkContinue(f, at, b)
	checkConnection(f, at, b)
}

func webURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}
