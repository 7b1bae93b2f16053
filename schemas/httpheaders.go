package schemas

// Headers of HTTP that SDKs know, in the form in which net/http keeps them.
const (
	HeaderRetryAfter   = "Retry-After"    // whole seconds
	HeaderRetryAfterMS = "Retry-After-Ms" // the same in milliseconds
	HeaderShouldRetry  = "X-Should-Retry" // true or false: what the SDKs of OpenAI and Anthropic heed before the status
	HeaderProcessingMS = "Openai-Processing-Ms"
	HeaderSDKRetry     = "X-Stainless-Retry-Count" // of the caller: which retry of its SDK this is

	// HeaderIdempotentReplayed says whether a request with a key or id of the caller's joined an earlier one (docs/adr/0008).
	HeaderIdempotentReplayed = "Idempotent-Replayed"

	// What the cache did (docs/adr/0014): its status is in Llm-Cache.
	HeaderAge         = "Age"              // of a hit: seconds since the answer was kept
	HeaderCacheReason = "Llm-Cache-Reason" // of a bypass

	HeaderCacheControl = "Cache-Control"

	HeaderLimitRequests     = "X-Ratelimit-Limit-Requests"
	HeaderRemainingRequests = "X-Ratelimit-Remaining-Requests"
	HeaderResetRequests     = "X-Ratelimit-Reset-Requests"
	HeaderLimitTokens       = "X-Ratelimit-Limit-Tokens"
	HeaderRemainingTokens   = "X-Ratelimit-Remaining-Tokens"
	HeaderResetTokens       = "X-Ratelimit-Reset-Tokens"

	// The same on the surface of Anthropic, where a reset is a time (docs/adr/0015).
	HeaderAnthropicLimitRequests     = "Anthropic-Ratelimit-Requests-Limit"
	HeaderAnthropicRemainingRequests = "Anthropic-Ratelimit-Requests-Remaining"
	HeaderAnthropicResetRequests     = "Anthropic-Ratelimit-Requests-Reset"
	HeaderAnthropicLimitTokens       = "Anthropic-Ratelimit-Tokens-Limit"
	HeaderAnthropicRemainingTokens   = "Anthropic-Ratelimit-Tokens-Remaining"
	HeaderAnthropicResetTokens       = "Anthropic-Ratelimit-Tokens-Reset"
)
