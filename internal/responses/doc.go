// Package responses is OpenAI's Responses dialect over the pipeline's log of chat chunks.
//
// The log of a Responses request holds the chunks of a chat completion, because that is what model servers speak: a
// worker converts the body with [ToChat]. The events that a caller of the Responses API reads are not stored. They are a
// pure function of what is: the request body, the time at which the request's chain began, the chunks, and how the chain
// ended ([Player]). Neither a clock nor chance has a part in them, and the cut of the chunks into frames has none. So any
// process gives the same events with the same sequence numbers at any time, and a reader goes on behind the last one it
// saw after any restart.
//
//	body ── Parse ──► Request ─┐
//	                           ├─► Player ──► events, or the response object as it stands
//	frames ────────────────────┘
package responses

import "strings"

const idPrefix = "resp_"

// ID is the id of the response to a request.
func ID(request string) string { return idPrefix + request }

// RequestID is the request whose response has an id; it reports whether the id has the form of one.
func RequestID(id string) (request string, ok bool) { return strings.CutPrefix(id, idPrefix) }
