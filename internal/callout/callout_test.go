package callout

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

func TestParseSeeds(t *testing.T) {
	p, err := NewPairs()
	if err != nil {
		t.Fatal(err)
	}
	if issuer, xkey, err := ParseSeeds(p.IssuerSeed, p.XKeySeed); err != nil || issuer == nil || xkey == nil {
		t.Errorf("good seeds: %v", err)
	}
	if _, xkey, err := ParseSeeds(p.IssuerSeed, ""); err != nil || xkey != nil {
		t.Errorf("without encryption: %v, %v", xkey, err)
	}
	for name, tt := range map[string]struct{ issuer, xkey, want string }{
		"none": {"", "", "issuer seed"}, "public": {p.Issuer, "", "issuer seed"}, "swapped": {p.XKeySeed, p.IssuerSeed, "another kind"},
		"torn": {p.IssuerSeed[:40], "", "not an nkey seed"}, "xkey": {p.IssuerSeed, p.IssuerSeed, "xkey seed"},
	} {
		_, _, err := ParseSeeds(tt.issuer, tt.xkey)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), p.IssuerSeed[:10]) || strings.Contains(err.Error(), p.XKeySeed[:10])) {
			t.Errorf("%s: the error tells a seed: %v", name, err)
		}
	}
}

// asked is a request as a server signs it.
func asked(t *testing.T, options jwt.ConnectOptions) string {
	t.Helper()
	server, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	question := jwt.NewAuthorizationRequestClaims("issuer")
	question.UserNkey, question.Server.ID, question.ConnectOptions = public, "NSERVER", options
	token, err := question.Encode(server)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func responder(t *testing.T, encrypted bool) *Responder {
	t.Helper()
	p, err := NewPairs()
	if err != nil {
		t.Fatal(err)
	}
	if !encrypted {
		p.XKeySeed = ""
	}
	r := &Responder{log: slog.New(slog.DiscardHandler)}
	if r.issuer, r.xkey, err = ParseSeeds(p.IssuerSeed, p.XKeySeed); err != nil {
		t.Fatal(err)
	}
	r.Admit(func(c keys.Credentials) (keys.Grant, error) {
		if c.Token != "good" || c.Loopback {
			return keys.Grant{}, schemas.Errorf(schemas.CodeInvalidKey, "not known")
		}
		return keys.Grant{Name: "id/12345678", Account: schemas.AccountEdge, Publish: []string{"llm.chat.acme.*"}, Subscribe: []string{"llm.replies.acme.*"}, Expires: time.Now().Add(time.Minute)}, nil
	})
	return r
}

func TestAnswer(t *testing.T) {
	r := responder(t, false)
	reply := func(options jwt.ConnectOptions) *jwt.AuthorizationResponseClaims {
		t.Helper()
		data, err := r.answer(&bus.AuthRequest{Data: []byte(asked(t, options))})
		if err != nil {
			t.Fatal(err)
		}
		claims, err := jwt.DecodeAuthorizationResponseClaims(string(data))
		if err != nil || claims.Audience != "NSERVER" {
			t.Fatalf("answer for %q: %v", claims.Audience, err)
		}
		return claims
	}
	user, err := jwt.DecodeUserClaims(reply(jwt.ConnectOptions{Token: "good"}).Jwt)
	if err != nil {
		t.Fatal(err)
	}
	left := time.Until(time.Unix(user.Expires, 0))
	if user.Name != "id/12345678" || user.Audience != schemas.AccountEdge || left <= 0 || left > time.Minute ||
		len(user.Pub.Allow) != 1 || len(user.Sub.Allow) != 1 || user.Limits.Payload != maxPayload || user.Limits.Subs != maxSubs ||
		len(user.AllowedConnectionTypes) != 1 || user.AllowedConnectionTypes[0] != jwt.ConnectionTypeStandard {
		t.Errorf("user %+v", user)
	}
	for name, options := range map[string]jwt.ConnectOptions{
		"nothing": {}, "a wrong key": {Token: "bad"}, "a JWT": {Token: "good", JWT: "x"}, "an nkey": {Token: "good", Nkey: "U"},
	} {
		if got := reply(options); got.Jwt != "" || got.Error == "" {
			t.Errorf("%s: %+v, want a refusal", name, got.AuthorizationResponse)
		}
	}
}

// A question that is encrypted for nobody, or that is not although it should be, is not answered.
func TestEncryptionMustAgree(t *testing.T) {
	question := asked(t, jwt.ConnectOptions{Token: "good"})
	server, err := nkeys.CreateCurveKeys()
	if err != nil {
		t.Fatal(err)
	}
	public, err := server.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := responder(t, true).answer(&bus.AuthRequest{Data: []byte(question)}); err == nil || !strings.Contains(err.Error(), "do not agree") {
		t.Errorf("a plain question: %v", err)
	}
	if _, err := responder(t, false).answer(&bus.AuthRequest{Data: []byte(question), XKey: public}); err == nil || !strings.Contains(err.Error(), "do not agree") {
		t.Errorf("an encrypted question: %v", err)
	}
	if _, err := responder(t, true).answer(&bus.AuthRequest{Data: []byte(question), XKey: public}); err == nil || !strings.Contains(err.Error(), "decrypt") {
		t.Errorf("a question for somebody else: %v", err)
	}
	if _, err := responder(t, false).answer(&bus.AuthRequest{Data: []byte("x")}); err == nil {
		t.Error("garbage was answered")
	}
}

func TestExpiry(t *testing.T) {
	now := time.Now()
	for key, want := range map[time.Time]time.Time{
		{}: now.Add(connectionLife), now.Add(time.Minute): now.Add(time.Minute), now.Add(48 * time.Hour): now.Add(connectionLife),
	} {
		if got := expiry(key, now); !got.Equal(want) {
			t.Errorf("a key until %s gives a connection until %s, want %s", key, got, want)
		}
	}
}
