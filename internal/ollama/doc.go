// Package ollama is the dialect of Ollama's own API: chat requests are put into it and its answers are turned into those of
// chat. It is spoken by lines of JSON: each is a piece of the answer, the last one has "done": true.
package ollama
