// Package cache says what a cached answer is: under which key it is kept, which requests may have one, which answers may be
// one, how it is written, and how it is said again. Where entries are kept, and when they are asked for, is the router's.
//
// Two requests share a key only if their tenant, namespace, op, model, backends and bodies are equal, where bodies are
// compared in the canonical form of RFC 8785 less the members that cannot change an answer. A member that is not known
// here splits the key, so that nothing new is ever answered with something old.
package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// keyVersion is part of every key: a change of what a key is made of changes it, so that old entries are never found.
const keyVersion = "v1"

// Request is what the key of a request is made of.
type Request struct {
	Tenant    string
	Namespace string // splits the entries of a tenant, for instance by its users; may be empty
	Op        schemas.Op
	Revision  string          // of the backends that serve the model: with other backends there are other answers
	Header    schemas.Header  // the caller's, of which those of the messages dialect may change an answer
	Parsed    *openai.Request // the body, as [openai.ParseRequest] reads it for Op
	Sampled   bool            // an answer may be kept although another run would give another one
}

// Key is the identity of a request among all that get the same answer. The zero Key is none. Keys are comparable.
type Key struct {
	sum       [sha256.Size]byte
	namespace string // as a token of a subject
	stream    bool
	options   string // the canonical stream_options of a stream
}

// KeyOf gives the key of a request whose answer may be kept or shared, or the reason why it may not. It says nothing of
// whether anybody wants that. The cost is one pass over the body and one over its canonical form.
func KeyOf(r *Request) (Key, Reason) {
	if reason := forbids(r); reason != "" {
		return Key{}, reason
	}
	b, reason := canonical(r.Op, r.Parsed.Body)
	if reason != "" {
		return Key{}, reason
	}
	h := sha256.New()
	for _, part := range [...]string{
		keyVersion, r.Tenant, r.Namespace, string(r.Op), r.Parsed.Model, r.Revision,
		value(r.Header, schemas.HeaderAnthropicVersion), value(r.Header, schemas.HeaderAnthropicBeta),
	} {
		writePart(h, []byte(part))
	}
	writePart(h, b.kept)
	key := Key{namespace: NamespaceToken(r.Namespace), stream: r.Parsed.Stream, options: string(b.streamOptions)}
	h.Sum(key.sum[:0])
	return key, ""
}

// writePart writes a part with its length, so that no two lists of parts are written alike.
func writePart(h hash.Hash, part []byte) {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(part)))
	h.Write(size[:])
	h.Write(part)
}

func value(h schemas.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// String is the key as the end of a subject of LLM_CACHE: the namespace's token and 64 hex digits. A streamed and a unary
// request for the same have the same key, since either can be answered from one entry.
func (k Key) String() string { return k.namespace + "." + hex.EncodeToString(k.sum[:]) }

// Flight is the key of a request among those that can share one run: it is split by stream and stream_options too,
// because who shares a run is given the very frames of it.
func (k Key) Flight() string {
	h := sha256.New()
	writePart(h, k.sum[:])
	if k.stream {
		writePart(h, []byte("stream"))
		writePart(h, []byte(k.options))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.namespace == "" }

// NamespaceToken is a namespace as a token of a subject, by which all entries of it can be purged at once.
func NamespaceToken(namespace string) string {
	if namespace == "" {
		return "_"
	}
	sum := sha256.Sum256([]byte(namespace))
	return hex.EncodeToString(sum[:8])
}
