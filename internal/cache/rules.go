package cache

import (
	"bytes"

	"github.com/weir-llm/weir/schemas"
)

// Reason is why the answer to a request is neither kept nor shared: one word, as it is counted and told to callers. The
// empty Reason is none.
type Reason string

// The reasons that lie in a request.
const (
	ReasonOp         Reason = "op"         // nothing of this op is kept
	ReasonSampling   Reason = "sampling"   // temperature is not 0, and nobody said that sampled answers may be kept
	ReasonChoices    Reason = "choices"    // it asks for several answers
	ReasonTools      Reason = "tools"      // the model may act, or ask for it
	ReasonSearch     Reason = "search"     // the model may look things up
	ReasonAudio      Reason = "audio"      // the answer is more than text
	ReasonLogProbs   Reason = "logprobs"   // the answer has log probabilities, which a replay cannot cut into pieces
	ReasonThinking   Reason = "thinking"   // the answer has signed thoughts
	ReasonStore      Reason = "store"      // the model server is to keep the answer
	ReasonBackground Reason = "background" // nobody waits for the answer
	ReasonReference  Reason = "reference"  // it names content elsewhere, which may change
	ReasonNumber     Reason = "number"     // it has a number from 2^53 on, of which the canonical form is not exact
	ReasonBody       Reason = "body"       // it has no canonical form: a member twice, or text that is not UTF-8
)

// forbids is the reason that lies in what is known of a request without its canonical form.
func forbids(r *Request) Reason {
	p := r.Parsed
	switch r.Op {
	case schemas.OpChat, schemas.OpCompletion, schemas.OpMessages, schemas.OpResponses:
	case schemas.OpEmbedding:
		return "" // the same vectors every time
	default:
		return ReasonOp
	}
	switch {
	case p.Tools:
		return ReasonTools
	case p.N > 1:
		return ReasonChoices
	case p.LogProbs:
		return ReasonLogProbs
	case !r.Sampled && !p.Greedy():
		return ReasonSampling
	}
	return ""
}

// meaning is what a member of a body means for its key.
type meaning int

const (
	kept     meaning = iota // it may change the answer
	excluded                // it cannot
	options                 // excluded, but it changes how the answer is streamed
)

// classify says what a top-level member of a body means, and the reason that it is if it is given.
func classify(op schemas.Op, name string) (meaning, Reason) {
	switch name {
	case "stream", "user", "safety_identifier", "metadata", "service_tier", "prompt_cache_key", "prompt_cache_options",
		"prompt_cache_retention", "priority", "request_id", "session_id", "cache_salt", "return_token_ids":
		return excluded, ""
	case "stream_options":
		return options, ""
	case "store":
		if op == schemas.OpResponses { // it is kept here, also when it comes from the cache
			return excluded, ""
		}
		return excluded, ReasonStore
	case "x_previous_response_id": // of op responses: whose conversation is in the input already (docs/adr/0009)
		return excluded, ""
	case "web_search_options", "search_parameters":
		return kept, ReasonSearch
	case "mcp_servers", "function_call", "container":
		return kept, ReasonTools
	case "audio":
		return kept, ReasonAudio
	case "thinking":
		if op == schemas.OpMessages {
			return kept, ReasonThinking
		}
	case "background":
		return kept, ReasonBackground
	case "previous_response_id", "conversation":
		return kept, ReasonReference
	}
	return kept, ""
}

// given reports whether a value asks for something.
func given(value []byte) bool {
	switch string(value) {
	case "null", "false", "0", `""`, "[]", "{}", `"none"`, `{"type":"disabled"}`:
		return false
	}
	return true
}

// refers reports whether canonical JSON names content elsewhere. In canonical form a name is written in one way only, and
// a quote within a text is escaped, so that what looks like a member is one.
func refers(canonical []byte) bool {
	for _, name := range [...]string{`url":"`, `uri":"`} {
		for rest := canonical; ; {
			_, after, found := bytes.Cut(rest, []byte(name))
			if !found {
				break
			}
			if !bytes.HasPrefix(after, []byte("data:")) {
				return true
			}
			rest = after
		}
	}
	return bytes.Contains(canonical, []byte(`"file_id":"`))
}
