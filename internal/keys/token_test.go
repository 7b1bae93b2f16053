package keys

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestTokenRoundTrip(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		token := NewToken(newID())
		text := token.Reveal()
		if len(text) != tokenLength || seen[text] {
			t.Fatalf("key %q: %d characters, seen before: %v", text, len(text), seen[text])
		}
		seen[text] = true
		got, err := ParseToken(text)
		if err != nil || got != token {
			t.Fatalf("ParseToken = %v, %v", got, err)
		}
	}
}

// The form is a promise to secret scanners and to keys that exist.
func TestTokenFormIsFixed(t *testing.T) {
	token := Token{ID: "0123456789ab", secret: strings.Repeat("Zz9", 14) + "0"}
	const want = "weir_0123456789ab_Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz9Zz901UoZ0t"
	if got := token.Reveal(); got != want {
		t.Errorf("key is %s, want %s", got, want)
	}
}

// A key with any one character changed, left out or doubled is told from a key without asking anybody.
func TestMistypedTokens(t *testing.T) {
	text := NewToken(newID()).Reveal()
	for i := range len(text) {
		for _, bad := range []string{text[:i] + text[i+1:], text[:i] + text[i:i+1] + text[i:], text[:i] + swapCase(text[i:i+1]) + text[i+1:]} {
			if bad == text {
				continue
			}
			if _, err := ParseToken(bad); !errors.Is(err, ErrMalformed) {
				t.Errorf("%q is taken for a key: %v", bad, err)
			}
		}
	}
}

func swapCase(s string) string {
	if up := strings.ToUpper(s); up != s {
		return up
	}
	return strings.ToLower(s)
}

func TestTokenIsNotPrinted(t *testing.T) {
	token := NewToken(newID())
	for _, printed := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %q", token, token, token, token, token)} {
		if strings.Contains(printed, token.secret) {
			t.Errorf("printed as %s", printed)
		}
	}
}

// Each character is as likely as any other: a generator that favours some fails this by far.
func TestRandomIsUniform(t *testing.T) {
	const n = 62 * 2000
	counts := map[rune]int{}
	for _, c := range random(base62, n) {
		counts[c]++
	}
	for _, c := range base62 {
		if got := counts[c]; got < 1700 || got > 2300 {
			t.Errorf("%q came %d times of about 2000", c, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	text := NewToken("0123456789ab").Reveal()
	for _, seed := range []string{text, "", "weir_", text[:30], text + "x", strings.ToUpper(text), "weir__" + text[6:], "sk-" + text} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || token != (Token{}) {
				t.Fatalf("%q: %v with %v", text, err, token)
			}
			return
		}
		if token.Reveal() != text {
			t.Fatalf("%q is read as %q", text, token.Reveal())
		}
		if len(token.ID) != idLength || strings.ContainsAny(token.ID, ".*> \t\r\n/=") {
			t.Fatalf("id %q cannot be looked up", token.ID)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	token := NewToken("0123456789ab")
	record := Record{Version: 1, ID: "0123456789ab", Tenant: "acme", Models: []string{"*"}, Scope: ScopeFull, Secrets: []Secret{{Hash: encodeHash(hashOf(token.Reveal()))}}}
	f.Add("0123456789ab", record.encode())
	f.Add("x", []byte(`{"v":1,"id":"x","tenant":"a.b","models":["*"],"scope":"full"}`))
	f.Add("x", []byte(`{`))
	f.Fuzz(func(t *testing.T, id string, value []byte) {
		r, err := DecodeRecord(id, value)
		if err != nil {
			return
		}
		again, err := DecodeRecord(id, r.encode())
		if err != nil || again.Tenant != r.Tenant || len(again.Secrets) != len(r.Secrets) {
			t.Fatalf("%+v is written as %+v (%v)", r, again, err)
		}
		key := Key{Tenant: r.Tenant, Models: r.Models, Scope: r.Scope}
		for _, subject := range key.grant().Publish {
			if !strings.HasPrefix(subject, "llm.") || strings.Contains(subject, ">") || strings.Split(subject, ".")[2] != r.Tenant {
				t.Fatalf("a key of tenant %q may publish to %q", r.Tenant, subject)
			}
		}
	})
}
