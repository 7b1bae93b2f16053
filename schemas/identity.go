package schemas

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
)

// MaxTokenBytes is the longest tenant or request id.
const MaxTokenBytes = 64

// Identity names a request everywhere: on the bus, in the log and in the database.
type Identity struct {
	Tenant  string
	Request string
}

// String is `<tenant>/<request>`, the message id of the request.
func (id Identity) String() string { return id.Tenant + "/" + id.Request }

// Chunks is the subject that the owner of the request writes frames to.
func (id Identity) Chunks() string { return "llm.chunks." + id.Tenant + "." + id.Request }

// Replies is the subject that committed frames are read from, live or stored.
func (id Identity) Replies() string { return "llm.replies." + id.Tenant + "." + id.Request }

// Result is the subject of the one final record.
func (id Identity) Result() string { return "llm.results." + id.Tenant + "." + id.Request }

// Cancel is the subject of the hint to stop this request.
func (id Identity) Cancel() string { return "llm.cancel." + id.Tenant + "." + id.Request }

// Attach is the subject on which a reader says that it reads this request (docs/adr/0003).
func (id Identity) Attach() string { return "llm.attach." + id.Tenant + "." + id.Request }

// WorkID is the message id of a dispatch of the request.
func (id Identity) WorkID(dispatch int) string {
	return id.Tenant + "/" + id.Request + "/" + strconv.Itoa(dispatch)
}

// Validate reports why the identity cannot stand on the wire.
func (id Identity) Validate() error {
	if err := ValidateTenant(id.Tenant); err != nil {
		return err
	}
	return ValidateRequestID(id.Request)
}

// ParseIdentity reads the last two tokens of a subject such as llm.replies.<tenant>.<request>.
func ParseIdentity(subject string) (Identity, bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "llm" {
		return Identity{}, false
	}
	id := Identity{Tenant: parts[2], Request: parts[3]}
	return id, id.Validate() == nil
}

// ValidateTenant accepts ^[A-Za-z0-9_-]{1,64}$.
func ValidateTenant(tenant string) error { return validateToken("tenant", tenant) }

// ValidateRequestID accepts ^[A-Za-z0-9_-]{1,64}$, the form of every request id.
func ValidateRequestID(request string) error { return validateToken("request id", request) }

// ValidateCallerID accepts what a caller may choose as a request id: a valid id that is not of the form s<digits>, which
// belongs to requests that were published without one.
func ValidateCallerID(request string) error {
	if err := ValidateRequestID(request); err != nil {
		return err
	}
	if isSequenceID(request) {
		return Errorf(CodeInvalidValue, "request id %q is reserved: ids of the form s<digits> are given to requests published without one; choose another", request)
	}
	return nil
}

// SequenceID is the id of a request that was published without one: its sequence in LLM_REQUESTS, as the PubAck told.
func SequenceID(sequence uint64) string { return "s" + strconv.FormatUint(sequence, 10) }

// IdempotencyID is the id of a request that carries an Idempotency-Key, the same for the same tenant and key.
func IdempotencyID(tenant, key string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + key))
	return "idk_" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
}

// RerunID is the id of the nth rerun of a request whose earlier run failed before its first token.
func RerunID(request string, n int) string {
	if n == 0 {
		return request
	}
	return request + "-" + strconv.Itoa(n)
}

func isSequenceID(request string) bool {
	digits, ok := strings.CutPrefix(request, "s")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func validateToken(what, s string) error {
	if s == "" {
		return Errorf(CodeInvalidValue, "%s is empty: use 1 to %d characters of A-Z a-z 0-9 _ -", what, MaxTokenBytes)
	}
	if len(s) > MaxTokenBytes {
		return Errorf(CodeInvalidValue, "%s has %d bytes: at most %d are allowed", what, len(s), MaxTokenBytes)
	}
	for i := range len(s) {
		if !plain(s[i]) {
			return Errorf(CodeInvalidValue, "%s has the character %q: use only A-Z a-z 0-9 _ -", what, s[i])
		}
	}
	return nil
}

// plain reports whether c stands for itself in a subject token.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}
