// Package openai is the OpenAI wire dialect, used by the door that speaks it to callers and by the backend that speaks it
// to model servers: server-sent events, validation of requests, a look into chunks, the few mendings a chunk may need,
// the forms an upstream reports errors in, and putting a streamed answer together.
//
// Bytes travel on untouched. A request loses only the members a tenant must not control, and a chunk is changed only
// where a client would break on it or where it answers something that the caller did not ask.
package openai
