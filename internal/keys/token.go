package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
)

// The form of a key: weir_<id>_<secret><checksum>, 67 characters.
//
// The prefix lets secret scanners find a key that was published by mistake, and the checksum lets them, and us, tell one
// from a text that looks like it, or from one that was copied badly, without asking anybody. All parts are letters and
// digits, so that a double click takes the whole.
const (
	tokenPrefix   = "weir_"
	idLength      = 12 // of 0-9 a-z: 62 bits, for looking up; not secret
	secretLength  = 43 // of 0-9 A-Z a-z: 256 bits
	checkLength   = 6  // CRC-32 of all before it, in base 62
	tokenLength   = len(tokenPrefix) + idLength + 1 + secretLength + checkLength
	fingerprint   = 8 // hex digits of the hash that name a secret
	maxTokenBytes = 256
)

const (
	idAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
	base62     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrMalformed says that a text cannot be a key that Weir made: it was cut, or mistyped.
var ErrMalformed = errors.New("malformed: it was not copied whole, or mistyped")

// Token is a key in its parts.
type Token struct {
	ID     string
	secret string
}

// NewToken makes a key for an id. Its secret is new, from the system's random source.
func NewToken(id string) Token { return Token{ID: id, secret: random(base62, secretLength)} }

// newID makes an id that nobody has, but for a chance of one in 10^9 among a hundred thousand.
func newID() string { return random(idAlphabet, idLength) }

// ParseToken takes a key apart. Only a text that [Token.Reveal] may have written is one.
func ParseToken(text string) (Token, error) {
	if len(text) != tokenLength || text[:len(tokenPrefix)] != tokenPrefix || text[len(tokenPrefix)+idLength] != '_' {
		return Token{}, ErrMalformed
	}
	body, check := text[:tokenLength-checkLength], text[tokenLength-checkLength:]
	t := Token{ID: body[len(tokenPrefix) : len(tokenPrefix)+idLength], secret: body[len(tokenPrefix)+idLength+1:]}
	if !over(idAlphabet, t.ID) || !over(base62, t.secret) || checksum(body) != check {
		return Token{}, ErrMalformed
	}
	return t, nil
}

// IsToken reports whether a text has the form of a key that Weir made.
func IsToken(text string) bool {
	_, err := ParseToken(text)
	return err == nil
}

// Reveal is the key as its owner needs it. It is shown once and never stored.
func (t Token) Reveal() string {
	body := tokenPrefix + t.ID + "_" + t.secret
	return body + checksum(body)
}

// String hides the secret, so that a token that is logged by mistake tells nothing.
func (t Token) String() string { return tokenPrefix + t.ID + "_***" }

// GoString hides the secret from %#v.
func (t Token) GoString() string { return t.String() }

// hash is what is stored of a key. SHA-256 alone is enough: there are 2^256 secrets to try, so that no slowness is
// needed, and every request pays for it (docs/adr/0006).
type hash = [sha256.Size]byte

func hashOf(text string) hash { return sha256.Sum256([]byte(text)) }

func parseHash(text string) (h hash, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, errors.New("the hash must be the SHA-256 of the key in 64 hex digits")
	}
	return hash(b), nil
}

func encodeHash(h hash) string { return hex.EncodeToString(h[:]) }

func checksum(body string) string {
	var digits [checkLength]byte
	sum := crc32.ChecksumIEEE([]byte(body))
	for i := checkLength - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return string(digits[:])
}

func over(alphabet, text string) bool {
	for i := range len(text) {
		if strings.IndexByte(alphabet, text[i]) < 0 {
			return false
		}
	}
	return true
}

// random draws n characters, each as likely as any other.
func random(alphabet string, n int) string {
	limit := byte(256 / len(alphabet) * len(alphabet)) // bytes from here on would favour the first characters
	out := make([]byte, 0, n)
	var pool [64]byte
	for len(out) < n {
		_, _ = rand.Read(pool[:]) // never fails: the runtime ends the process instead
		for _, b := range pool {
			if b < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}
