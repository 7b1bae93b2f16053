package inference

import (
	"hash/fnv"

	"github.com/tidwall/gjson"
)

// maxPrefix is how much of how a conversation begins tells it from others.
const maxPrefix = 4 << 10

// prefixOf is a hash of how the conversation begins, the same in all its turns and in every process; 0 = there is none. It
// is the key that the caller gave for the purpose, or else what comes before the model's first turn: what is set by the
// system, and what was asked first.
func prefixOf(body []byte) uint64 {
	if key := gjson.GetBytes(body, "prompt_cache_key"); key.Type == gjson.String && key.Str != "" {
		return hashPrefix([]byte(key.Raw))
	}
	from := gjson.GetBytes(body, "messages")
	if !from.IsArray() {
		prompt := gjson.GetBytes(body, "prompt")
		return hashPrefix([]byte(prompt.Raw[:min(len(prompt.Raw), maxPrefix)]))
	}
	prefix := make([]byte, 0, 512)
	if system := gjson.GetBytes(body, "system"); system.Exists() { // of Anthropic's dialect
		prefix = append(prefix, system.Raw[:min(len(system.Raw), maxPrefix)]...)
	}
	from.ForEach(func(_, message gjson.Result) bool {
		prefix = append(prefix, message.Raw[:min(len(message.Raw), maxPrefix)]...)
		role := message.Get("role").Str
		return len(prefix) < maxPrefix && (role == "system" || role == "developer")
	})
	return hashPrefix(prefix)
}

func hashPrefix(prefix []byte) uint64 {
	if len(prefix) == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(prefix)
	return max(h.Sum64(), 1)
}
