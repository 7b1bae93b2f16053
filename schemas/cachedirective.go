package schemas

import (
	"strconv"
	"strings"
)

// CacheMode is whether the answer to a request may come from the cache, and be kept there.
type CacheMode string

// The modes of Llm-Cache. Without one the tenant's setting holds.
const (
	CacheOff        CacheMode = "off"     // neither
	CacheOn         CacheMode = "on"      // both
	CacheRenew      CacheMode = "refresh" // only kept
	cacheNoCache              = "no-cache"
	cacheOnlyCached           = "only-if-cached"
	cacheMaxAge               = "max-age"
)

// CacheDirective is what a caller says of the cache, in Llm-Cache, Llm-Cache-TTL and Llm-Cache-Namespace. Llm-Cache is a list:
// at most one mode, and restrictions, which are those of Cache-Control and by themselves switch nothing on.
type CacheDirective struct {
	Mode         CacheMode
	NoCache      bool // the answer must be new
	OnlyIfCached bool // the answer must not be new
	HasMaxAge    bool
	MaxAge       int    // seconds that the answer may be old
	TTL          int    // seconds that the answer is to be kept; 0 = not said
	Namespace    string // empty = not said
}

// ParseCacheDirective reads the headers of a request. The error is an [Error].
func ParseCacheDirective(h Header) (d CacheDirective, err error) {
	list := strings.Join(h[HeaderCache], ",") // as HTTP has it of a header that is there more than once
	if list == "" && h[HeaderCacheTTL] == nil && h[HeaderCacheNamespace] == nil {
		return d, nil
	}
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word != "" && !d.take(word) {
			return d, badHeader(HeaderCache, list, "one of off, on and refresh, and restrictions: no-cache, max-age=<seconds>, only-if-cached")
		}
	}
	if d.OnlyIfCached && (d.NoCache || d.Mode == CacheRenew) {
		return d, Errorf(CodeInvalidValue, "a request cannot be both: only-if-cached, and for a new answer (no-cache, refresh); leave one out")
	}
	if ttl := get(h, HeaderCacheTTL); ttl != "" {
		if d.TTL, err = strconv.Atoi(ttl); err != nil || d.TTL < 1 || d.TTL > MaxCacheTTL {
			return d, badHeader(HeaderCacheTTL, ttl, "whole seconds from 1 to "+strconv.Itoa(MaxCacheTTL))
		}
	}
	d.Namespace = get(h, HeaderCacheNamespace)
	return d, ValidateCacheNamespace(d.Namespace)
}

func (d *CacheDirective) take(word string) bool {
	switch mode := CacheMode(word); mode {
	case CacheOff, CacheOn, CacheRenew:
		if d.Mode != "" && d.Mode != mode {
			return false
		}
		d.Mode = mode
		return true
	case cacheNoCache:
		d.NoCache = true
		return true
	case cacheOnlyCached:
		d.OnlyIfCached = true
		return true
	}
	name, value, _ := strings.Cut(word, "=")
	seconds, ok := deltaSeconds(value)
	if name != cacheMaxAge || !ok {
		return false
	}
	if !d.HasMaxAge || seconds < d.MaxAge {
		d.MaxAge = seconds
	}
	d.HasMaxAge = true
	return true
}

// deltaSeconds reads seconds as HTTP writes them. What is longer than any entry lives is as good as that.
func deltaSeconds(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > MaxCacheTTL {
		n = MaxCacheTTL
	}
	return n, true
}

// ValidateCacheNamespace accepts up to 128 printable characters of ASCII.
func ValidateCacheNamespace(namespace string) error {
	if len(namespace) > MaxCacheNamespace {
		return Errorf(CodeInvalidValue, "header %s has %d bytes: at most %d are allowed; send a hash of it", HeaderCacheNamespace, len(namespace), MaxCacheNamespace)
	}
	for _, c := range []byte(namespace) {
		if c < ' ' || c > '~' {
			return badHeader(HeaderCacheNamespace, namespace, "printable characters of ASCII; send a hash of anything else")
		}
	}
	return nil
}

// CacheControl gives the directives of HTTP's Cache-Control as a value of Llm-Cache that already has one, which may be
// empty. Directives that mean nothing for a request here are ignored, as HTTP wants it. The error is an [Error].
func CacheControl(own string, control []string) (string, error) {
	var out strings.Builder
	out.WriteString(own)
	for word := range strings.SplitSeq(strings.Join(control, ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(word)), "=")
		switch name {
		case "no-store": // it wins over whatever else is said
			return string(CacheOff), nil
		case cacheNoCache, cacheOnlyCached:
			out.WriteString("," + name)
		case cacheMaxAge:
			if _, ok := deltaSeconds(strings.Trim(value, `"`)); !ok {
				return "", badHeader(HeaderCacheControl, word, "max-age=<seconds>")
			}
			out.WriteString("," + name + "=" + strings.Trim(value, `"`))
		}
	}
	return strings.TrimPrefix(out.String(), ","), nil
}
