package schemas

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Limits of the cache.
const (
	MaxCacheTTL        = 24 * 60 * 60 // seconds, the age of LLM_CACHE
	MaxCacheNamespace  = 128          // bytes
	MaxCacheEntryBytes = InlineBytes  // a larger answer is not kept
)

// CacheStatus is what the cache did for a request.
type CacheStatus string

// The statuses, as callers see them.
const (
	CacheHit     CacheStatus = "HIT"     // the answer is one that was kept
	CacheMiss    CacheStatus = "MISS"    // there was none
	CacheRefresh CacheStatus = "REFRESH" // the caller wanted a new one
	CacheBypass  CacheStatus = "BYPASS"  // no answer to such a request is kept

	CacheCoalesced CacheStatus = "COALESCED" // the answer is that of an equal request which ran at the same time (docs/adr/0023)
)

// Saved reports whether the answer took no model's work of its own.
func (s CacheStatus) Saved() bool { return s == CacheHit || s == CacheCoalesced }

// CacheNote tells what the cache did: on a work item in Llm-Cache-Key, with the order to keep the answer, and on the first
// frame that says so in Llm-Cache. A nil note says nothing.
type CacheNote struct {
	Status CacheStatus
	Age    int    // of a hit: seconds since the answer was kept
	Reason string // of a bypass
	Key    string // under which the answer is kept, as the end of its subject; empty in a frame
	TTL    int    // seconds for which it is to be kept; 0: it is not
}

// String is `<status> name=value …`, of the members that are set. It is empty for nil.
func (n *CacheNote) String() string {
	if n == nil {
		return ""
	}
	b := []byte(n.Status)
	word := func(name, value string) { b = append(append(append(append(b, ' '), name...), '='), value...) }
	if n.Status == CacheHit {
		word("age", strconv.Itoa(n.Age))
	}
	if n.Reason != "" {
		word("reason", n.Reason)
	}
	if n.Key != "" {
		word("key", n.Key)
	}
	if n.TTL > 0 {
		word("ttl", strconv.Itoa(n.TTL))
	}
	return string(b)
}

// ParseCacheNote reads what [CacheNote.String] wrote, of any version; nil when there is nothing. What cannot be read is
// left out: a note decides nothing about an answer.
func ParseCacheNote(s string) *CacheNote {
	if s == "" {
		return nil
	}
	words := strings.Split(s, " ")
	n := &CacheNote{Status: CacheStatus(words[0])}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		number, err := strconv.Atoi(value)
		switch {
		case name == "age" && err == nil && number >= 0:
			n.Age = number
		case name == "ttl" && err == nil && number > 0 && number <= MaxCacheTTL:
			n.TTL = number
		case name == "reason":
			n.Reason = value
		case name == "key" && ValidateCacheKey(value) == nil:
			n.Key = value
		}
	}
	return n
}

// Shown is the note as a frame holds it: without what only stages need.
func (n *CacheNote) Shown() *CacheNote {
	if n == nil {
		return nil
	}
	return &CacheNote{Status: n.Status, Age: n.Age, Reason: n.Reason}
}

// ValidateCacheKey accepts a namespace's token and a digest, separated by a dot.
func ValidateCacheKey(key string) error {
	namespace, digest, ok := strings.Cut(key, ".")
	if !ok || validateToken("namespace", namespace) != nil || validateToken("digest", digest) != nil {
		return fmt.Errorf("cache key %q is not <namespace>.<digest>", key)
	}
	return nil
}

// CacheSubject is where the entry of a tenant under a key is.
func CacheSubject(tenant, key string) string { return "llm.cache." + tenant + "." + key }

// cachePurged stands in the place of a namespace's token in the subject that says which entries are gone.
const cachePurged = "purged"

// CachePurgedSubject is where the last purge of a tenant's entries, or of a namespace of them, is marked. The sequence of the mark
// is a fence: an answer that was under way before it is not kept.
func CachePurgedSubject(tenant string) string { return CacheSubject(tenant, cachePurged+".last") }

// CacheSpace is the subject space of a tenant's entries, or of those of one namespace of it.
func CacheSpace(tenant, namespaceToken string) string {
	if namespaceToken == "" {
		return CacheSubject(tenant, "*.*")
	}
	return CacheSubject(tenant, namespaceToken+".*")
}

// ParseCachedSubject splits the subject under which an entry, or a purge, which has no key, is republished.
func ParseCachedSubject(subject string) (tenant, key string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "llm.cached.")
	tenant, key, split := strings.Cut(rest, ".")
	if !ok || !split || ValidateTenant(tenant) != nil || ValidateCacheKey(key) != nil {
		return "", "", false
	}
	if strings.HasPrefix(key, cachePurged+".") {
		key = ""
	}
	return tenant, key, true
}

// CacheEntry is a message in LLM_CACHE: a whole answer that equal requests may be given. An empty message in its place says
// that it is gone.
type CacheEntry struct {
	V             int
	Tenant        string
	Key           string
	Op            Op
	RequestID     string // whose answer it is
	TTL           int    // seconds from the time of the message
	FinishReasons []string
	Usage         *Usage
	Answer        json.RawMessage // the unary response, or what stands for one, less its id and time

	Extra Extra
}

func (e *CacheEntry) extra() *Extra { return &e.Extra }

func (e *CacheEntry) members(m *members) {
	m.number("v", &e.V, always)
	m.text("tenant", &e.Tenant, always)
	m.text("key", &e.Key, always)
	m.text("op", (*string)(&e.Op), always)
	m.text("request_id", &e.RequestID, always)
	m.number("ttl", &e.TTL, always)
	m.texts("finish_reasons", &e.FinishReasons)
	m.usage("usage", &e.Usage)
	m.raw("answer", &e.Answer)
}

// The checksum is the last member, over all that is before it.
const (
	sumMember = `,"crc32c":"`
	sumBytes  = len(sumMember) + 8 + len(`"}`)
)

// Encode writes the entry as one line of JSON with a checksum.
func (e *CacheEntry) Encode() []byte {
	b := appendRecord(make([]byte, 0, metadataSize+len(e.Answer)), e)
	b = b[:len(b)-1]
	var sum [4]byte
	putSum(sum[:], b)
	b = hex.AppendEncode(append(b, sumMember...), sum[:])
	return append(b, `"}`...)
}

func putSum(to, data []byte) {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	to[0], to[1], to[2], to[3] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
}

// DecodeCacheEntry reads what [CacheEntry.Encode] wrote for a tenant and key. Whatever is not that, be it damaged, of another
// version or of another request, is an error. The entry shares data.
func DecodeCacheEntry(tenant, key string, data []byte) (*CacheEntry, error) {
	whole := len(data) - sumBytes
	if whole < 1 || !bytes.HasPrefix(data[whole:], []byte(sumMember)) {
		return nil, errors.New("decode cache entry: it has no checksum")
	}
	var sum [4]byte
	putSum(sum[:], data[:whole])
	if want := data[whole+len(sumMember) : len(data)-2]; hex.EncodeToString(sum[:]) != string(want) {
		return nil, errors.New("decode cache entry: it is damaged")
	}
	if !valid(data) {
		return nil, errors.New("decode cache entry: it is not JSON")
	}
	e, err := ReadCacheEntry(data)
	if err != nil {
		return nil, err
	}
	switch {
	case e.V != Version:
		return nil, fmt.Errorf("decode cache entry: it is of version %d", e.V)
	case e.Tenant != tenant || e.Key != key:
		return nil, errors.New("decode cache entry: it is another one")
	case e.TTL < 1 || e.TTL > MaxCacheTTL || len(e.Answer) == 0:
		return nil, errors.New("decode cache entry: it is not whole")
	}
	return e, nil
}

// ReadCacheEntry reads again what [DecodeCacheEntry] has read before, without checking anything: a hit is made of it. It must not
// be given other data.
func ReadCacheEntry(data []byte) (*CacheEntry, error) {
	e := &CacheEntry{}
	if err := decodeValid(data, e); err != nil {
		return nil, fmt.Errorf("decode cache entry: %w", err)
	}
	delete(e.Extra, "crc32c")
	return e, nil
}
