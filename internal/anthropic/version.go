package anthropic

import (
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Names of the headers that say which form of the dialect a caller speaks.
const (
	HeaderVersion = "anthropic-version"
	HeaderBeta    = "anthropic-beta"
)

// The versions of the dialect.
const (
	Version2023 = "2023-06-01"
	Version2026 = "2026-10-21" // without sampling parameters
)

// DefaultVersion is that of a caller who names none.
const DefaultVersion = Version2023

// CheckVersion refuses a version that is no date. A later one than is known here counts as the latest that is.
func CheckVersion(version string) error {
	if _, err := time.Parse(time.DateOnly, version); version != "" && err != nil {
		return schemas.Errorf(schemas.CodeInvalidValue, "%s is %.40q: send %s or %s", HeaderVersion, version, Version2023, Version2026).WithParam(HeaderVersion)
	}
	return nil
}

// CheckBeta refuses what cannot be a list of beta names.
func CheckBeta(beta string) error {
	const most, allowed = 2048, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-, "
	if len(beta) > most || strings.Trim(beta, allowed) != "" {
		return schemas.Errorf(schemas.CodeInvalidValue, "%s must be names separated by commas, at most %d bytes", HeaderBeta, most).WithParam(HeaderBeta)
	}
	return nil
}

// CheckBody refuses what the version of the dialect no longer has. The body has been validated.
func CheckBody(version string, body []byte) error {
	if version < Version2026 {
		return nil
	}
	root := gjson.ParseBytes(body)
	for _, name := range [...]string{"temperature", "top_p", "top_k"} {
		if root.Get(name).Exists() {
			return invalid(name, "does not exist in version "+Version2026+": remove it, or send "+HeaderVersion+": "+Version2023)
		}
	}
	var bad error
	for i, message := range root.Get("messages").Array() {
		role := message.Get("role").Str
		for j, block := range message.Get("content").Array() {
			where := at("messages", i, at(".content", j, ""))
			switch kind := block.Get("type").Str; {
			case role == "assistant" && kind == "document":
				bad = invalid(where, "is a document in an assistant message, which version "+Version2026+" does not have: move it to a user message")
			case role == "user" && kind == "text" && given(block.Get("citations")):
				bad = invalid(where+".citations", "is given for user text, which version "+Version2026+" does not have: remove it")
			}
			if bad != nil {
				return bad
			}
		}
	}
	return nil
}
