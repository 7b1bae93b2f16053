// Package anthropic is the Anthropic Messages dialect, used by the door that speaks it to callers and by the backend that
// speaks it to model servers: a look into events, the forms of events and errors on the wire, and the translation to and
// from the OpenAI dialect, for requests, streams and unary answers.
//
// A messages request on a server that speaks the dialect is relayed, event by event, and nothing here changes what it
// says: signatures, citations and cache_control have no place in the other dialect and would be lost on the way. The
// translation is for everything else:
//
//	messages request → ToChat → chat request        chat chunks → Translator → messages events      (any OpenAI server)
//	chat request → ToMessages → messages request    messages events → Chunks → chat chunks          (an Anthropic server)
//
// What cannot be said in the other dialect is refused with an error that names the member, unless leaving it out
// changes nothing that the caller could rely on.
package anthropic
