package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// store is a Watcher that says what a test tells it to.
type store chan bus.KeyChange

func (s store) Watch(ctx context.Context, fn func(bus.KeyChange)) error {
	for {
		select {
		case change := <-s:
			fn(change)
		case <-ctx.Done():
			return nil
		}
	}
}

// bench is a ring in a bubble, over a store that the test writes.
type bench struct {
	t     *testing.T
	ring  *Ring
	store store
}

func inBubble(t *testing.T, test func(*bench), configured ...Configured) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: make(store)}
		var err error
		if b.ring, err = New(Config{Store: b.store, Configured: configured}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var owned sync.WaitGroup
		owned.Go(func() { _ = b.ring.Run(ctx) })
		defer owned.Wait()
		defer cancel()
		test(b)
	})
}

// all lists records, set changes one.
func (b *bench) all(records ...*Record) {
	b.store <- bus.KeyChange{All: true, Entries: entries(records)}
	synctest.Wait()
}

func (b *bench) set(records ...*Record) {
	b.store <- bus.KeyChange{Entries: entries(records)}
	synctest.Wait()
}

func entries(records []*Record) (list []bus.KeyEntry) {
	for _, r := range records {
		list = append(list, bus.KeyEntry{ID: r.ID, Value: r.encode()})
	}
	return list
}

// made is a key with its record.
func made(tenant string, expires time.Time) (Token, *Record) {
	token := NewToken(newID())
	return token, &Record{
		Version: recordVersion, ID: token.ID, Tenant: tenant, Models: []string{AllModels}, Scope: ScopeFull,
		Secrets: []Secret{{Hash: encodeHash(hashOf(token.Reveal())), Expires: expires}},
	}
}

func (b *bench) works(token Token, tenant string) Key {
	b.t.Helper()
	key, err := b.ring.Verify(token.Reveal())
	if err != nil || key.Tenant != tenant || key.ID != token.ID {
		b.t.Fatalf("Verify = %+v, %v; want a key of %s", key, err, tenant)
	}
	return key
}

func (b *bench) fails(text string, code schemas.Code, says string) {
	b.t.Helper()
	key, err := b.ring.Verify(text)
	e := schemas.AsError(err)
	if err == nil || e.Code != code || !strings.Contains(e.Message, says) {
		b.t.Fatalf("Verify = %+v, %v; want %s that says %q", key, err, code, says)
	}
}

// ends gives a channel with the reason when the key ends.
func ends(key Key) <-chan error {
	reason := make(chan error, 1)
	key.WhenRevoked(func(err error) { reason <- err })
	return reason
}

func (b *bench) ended(reason <-chan error, want error) {
	b.t.Helper()
	synctest.Wait()
	select {
	case err := <-reason:
		if !errors.Is(err, want) {
			b.t.Errorf("ended with %v, want %v", err, want)
		}
	default:
		b.t.Errorf("did not end with %v", want)
	}
}

func (b *bench) goesOn(reason <-chan error) {
	b.t.Helper()
	synctest.Wait()
	select {
	case err := <-reason:
		b.t.Errorf("ended with %v", err)
	default:
	}
}

func TestNobodyBeforeTheKeysAreKnown(t *testing.T) {
	inBubble(t, func(b *bench) {
		token, record := made("acme", time.Time{})
		b.fails(token.Reveal(), schemas.CodeUnavailable, "try again")
		if b.ring.Open() {
			t.Error("open before anything is known")
		}
		if _, err := b.ring.Anonymous(); schemas.AsError(err).Code != schemas.CodeUnavailable {
			t.Errorf("without a key: %v, want to be told to try again", err)
		}
		if _, err := b.ring.Admit(Credentials{Loopback: true}); err == nil {
			t.Error("a connection without a key was admitted")
		}
		if !b.ring.Live("someone/12345678") {
			t.Error("a connection is to be ended before it is known whether it may stay")
		}
		// What can be known is: a text that is no key, and a configured one.
		b.fails("nonsense", schemas.CodeInvalidKey, "malformed")
		b.all(record)
		b.works(token, "acme")
	})
	inBubble(t, func(b *bench) {
		if key, err := b.ring.Verify("configured"); err != nil || key.Tenant != "t" {
			t.Errorf("a configured key: %+v, %v", key, err)
		}
	}, Configured{ID: "c", SHA256: encodeHash(hashOf("configured")), Tenant: "t"})
}

func TestFirstKeyClosesTheDoorForGood(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.all()
		anonymous, err := b.ring.Anonymous()
		if err != nil || anonymous.Tenant != DefaultTenant || !anonymous.MaySend() || !anonymous.AllowsModel("any") || !b.ring.Open() {
			t.Fatalf("an open ring gives %+v, %v", anonymous, err)
		}
		grant, err := b.ring.Admit(Credentials{Loopback: true})
		if err != nil || grant.Account != schemas.AccountPipeline || !b.ring.Live(grant.Name) {
			t.Fatalf("an open ring grants %+v, %v", grant, err)
		}
		if _, err := b.ring.Admit(Credentials{}); err == nil {
			t.Error("a connection from elsewhere was admitted without a key")
		}
		if _, err := b.ring.Admit(Credentials{Loopback: true, Token: "x"}); err == nil {
			t.Error("a wrong key was taken for none")
		}
		reason := ends(anonymous)
		_, record := made("acme", time.Time{})
		b.set(record)
		b.ended(reason, ErrClosed)
		if _, err := b.ring.Admit(Credentials{Loopback: true}); err == nil || !b.ring.Live(grant.Name) {
			t.Errorf("a connection: new ones get %v, and one that made the key is live: %v", err, b.ring.Live(grant.Name))
		}
		time.Sleep(closingTime)
		record.Secrets[0].Revoked = time.Now()
		b.set(record)
		b.set(&Record{ID: record.ID})                                      // a record that cannot be read
		b.store <- bus.KeyChange{Entries: []bus.KeyEntry{{ID: record.ID}}} // and none
		b.all()
		if _, err := b.ring.Anonymous(); b.ring.Open() || err == nil || b.ring.Live(grant.Name) {
			t.Error("the door is open again")
		}
	})
}

// A key that cannot be read lets nobody in, and closes the door like any other.
func TestUnreadableRecord(t *testing.T) {
	for name, value := range map[string]string{
		"garbage": "x", "empty": "", "newer": `{"v":2,"id":"ID"}`, "another's": `{"v":1,"id":"other","tenant":"a","models":["*"],"scope":"full"}`,
		"bad tenant": `{"v":1,"id":"ID","tenant":">","models":["*"],"scope":"full"}`, "bad scope": `{"v":1,"id":"ID","tenant":"a","models":["*"],"scope":"all"}`,
		"no models": `{"v":1,"id":"ID","tenant":"a","scope":"full"}`,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				token, _ := made("acme", time.Time{})
				b.store <- bus.KeyChange{All: true, Entries: []bus.KeyEntry{{ID: token.ID, Value: []byte(strings.ReplaceAll(value, "ID", token.ID))}}}
				synctest.Wait()
				b.fails(token.Reveal(), schemas.CodeInvalidKey, "not known")
				if b.ring.Open() {
					t.Error("the door is open")
				}
			})
		})
	}
}

func TestRevocation(t *testing.T) {
	inBubble(t, func(b *bench) {
		token, record := made("acme", time.Time{})
		other, otherRecord := made("acme", time.Time{})
		b.all(record, otherRecord)
		notified := 0
		defer b.ring.OnEnd(func() { notified++ })()
		key := b.works(token, "acme")
		reason, stays := ends(key), ends(b.works(other, "acme"))
		b.set(record) // written again as it was
		b.goesOn(reason)
		record.Secrets[0].Revoked = time.Now()
		b.set(record)
		b.ended(reason, ErrRevoked)
		b.fails(token.Reveal(), schemas.CodeInvalidKey, "revoked")
		b.fails(NewToken(token.ID).Reveal(), schemas.CodeInvalidKey, "not known") // its end is told to its holder only
		if b.ring.Live(key.Name()) || !b.ring.Live("an operator's own user") || notified != 1 {
			t.Errorf("live: %v, notified %d times", b.ring.Live(key.Name()), notified)
		}
		b.ended(ends(key), ErrRevoked) // who asks later is told at once
		b.goesOn(stays)
		b.works(other, "acme")
		b.all(record) // gone from the store altogether
		b.ended(stays, ErrRevoked)
		b.fails(other.Reveal(), schemas.CodeInvalidKey, "not known")
	})
}

// A key that shares all but one character with one that works is refused, wherever the character is: nothing is decided by
// a part of a key.
func TestNearKeysAreRefused(t *testing.T) {
	inBubble(t, func(b *bench) {
		token, record := made("acme", time.Time{})
		b.all(record)
		for i := range len(token.secret) {
			near := token
			near.secret = token.secret[:i] + swapDigit(token.secret[i]) + token.secret[i+1:]
			b.fails(near.Reveal(), schemas.CodeInvalidKey, "not known")
		}
		for i := range len(token.ID) {
			near := token
			near.ID = token.ID[:i] + swapDigit(token.ID[i]) + token.ID[i+1:]
			b.fails(near.Reveal(), schemas.CodeInvalidKey, "not known")
		}
		b.fails(record.Secrets[0].Hash, schemas.CodeInvalidKey, "malformed") // what is stored opens nothing
		b.works(token, "acme")
	})
}

// swapDigit gives another character that may stand there.
func swapDigit(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

func TestRotation(t *testing.T) {
	inBubble(t, func(b *bench) {
		old, record := made("acme", time.Time{})
		b.all(record)
		oldEnds := ends(b.works(old, "acme"))
		second := NewToken(old.ID)
		record.Secrets = append(record.Secrets, newSecret(second, time.Now(), time.Time{}))
		b.set(record)
		b.goesOn(oldEnds)
		secondEnds := ends(b.works(second, "acme"))
		if a, z := b.works(old, "acme"), b.works(second, "acme"); a.Name() == z.Name() {
			t.Errorf("both secrets are called %s", a.Name())
		}
		record.Secrets[0].Revoked = time.Now()
		b.set(record)
		b.ended(oldEnds, ErrRevoked)
		b.goesOn(secondEnds)
		b.fails(old.Reveal(), schemas.CodeInvalidKey, "revoked")
		b.works(second, "acme")
	})
}

// What a key may do is part of what was let in by it.
func TestChangedRightsEndWhatWasBegun(t *testing.T) {
	inBubble(t, func(b *bench) {
		token, record := made("acme", time.Time{})
		b.all(record)
		reason := ends(b.works(token, "acme"))
		record.Scope = ScopeAudit
		b.set(record)
		b.ended(reason, ErrRevoked)
		if key := b.works(token, "acme"); key.MaySend() {
			t.Error("the key may still send")
		}
	})
}

func TestExpiry(t *testing.T) {
	inBubble(t, func(b *bench) {
		soon, record := made("acme", time.Now().Add(90*time.Minute))
		later, laterRecord := made("acme", time.Now().Add(100*time.Minute))
		b.all(record, laterRecord)
		key := b.works(soon, "acme")
		soonEnds, laterEnds := ends(key), ends(b.works(later, "acme"))
		time.Sleep(90*time.Minute - time.Nanosecond)
		b.works(soon, "acme")
		b.goesOn(soonEnds)
		time.Sleep(time.Nanosecond)
		b.ended(soonEnds, ErrExpired)
		b.fails(soon.Reveal(), schemas.CodeInvalidKey, "expired")
		if b.ring.Live(key.Name()) {
			t.Error("a connection of an expired key may go on")
		}
		b.goesOn(laterEnds)
		time.Sleep(10 * time.Minute)
		b.ended(laterEnds, ErrExpired)
	})
}

func TestConfiguredKeyExpires(t *testing.T) {
	at := time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC) // a bubble begins at midnight of this day
	inBubble(t, func(b *bench) {
		key, err := b.ring.Verify("configured")
		if err != nil {
			t.Fatal(err)
		}
		reason := ends(key)
		time.Sleep(time.Hour)
		b.ended(reason, ErrExpired)
		b.fails("configured", schemas.CodeInvalidKey, "expired")
	}, Configured{ID: "c", SHA256: encodeHash(hashOf("configured")), Tenant: "t", Expires: at})
}

func TestConfiguredKeysAreChecked(t *testing.T) {
	good := encodeHash(hashOf("secret"))
	for name, tt := range map[string]struct {
		keys []Configured
		want string
	}{
		"short hash":   {[]Configured{{ID: "a", SHA256: "abcd", Tenant: "t"}}, "64 hex digits"},
		"plain secret": {[]Configured{{ID: "a", SHA256: "not hex", Tenant: "t"}}, "64 hex digits"},
		"empty secret": {[]Configured{{ID: "a", SHA256: encodeHash(hashOf("")), Tenant: "t"}}, "empty"},
		"bad tenant":   {[]Configured{{ID: "a", SHA256: good, Tenant: "a.b"}}, "tenant"},
		"bad scope":    {[]Configured{{ID: "a", SHA256: good, Tenant: "t", Scope: "root"}}, "scope"},
		"no id":        {[]Configured{{SHA256: good, Tenant: "t"}}, "id of its own"},
		"same id":      {[]Configured{{ID: "a", SHA256: good, Tenant: "t"}, {ID: "a", SHA256: encodeHash(hashOf("x")), Tenant: "t"}}, "id of its own"},
		"same secret":  {[]Configured{{ID: "a", SHA256: good, Tenant: "t"}, {ID: "b", SHA256: good, Tenant: "u"}}, "same secret"},
	} {
		if _, err := New(Config{Configured: tt.keys}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestGrants(t *testing.T) {
	for name, tt := range map[string]struct {
		key  Key
		want []string
	}{
		"all":    {Key{Tenant: "acme", Scope: ScopeFull, Models: []string{"*"}}, schemas.EdgePublish("acme")},
		"models": {Key{Tenant: "acme", Scope: ScopeFull, Models: []string{"gpt-4.1", "echo"}}, []string{"llm.read.acme.*", "llm.resume.acme.*", "llm.cancel.acme.*", "llm.chat.acme.gpt-4=2E1", "llm.chat.acme.echo"}},
		"audit":  {Key{Tenant: "acme", Scope: ScopeAudit, Models: []string{"*"}}, []string{"llm.read.acme.*"}},
	} {
		grant := tt.key.grant()
		if diff := cmp.Diff(tt.want, grant.Publish); diff != "" {
			t.Errorf("%s may publish (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(schemas.EdgeSubscribe("acme"), grant.Subscribe); diff != "" || grant.Account != schemas.AccountEdge {
			t.Errorf("%s in account %s may subscribe (-want +got):\n%s", name, grant.Account, diff)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	ring, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	var token Token
	for range 10_000 {
		var record *Record
		token, record = made("acme", time.Time{})
		ring.apply(bus.KeyChange{Entries: entries([]*Record{record})})
	}
	text := token.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Verify(text); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLimitsOfAKey(t *testing.T) {
	long := strings.Repeat("x", maxTokenBytes)
	inBubble(t, func(b *bench) {
		b.all()
		if _, err := b.ring.Verify(long); err != nil {
			t.Errorf("a key of %d bytes: %v", len(long), err)
		}
		b.fails(long+"x", schemas.CodeInvalidKey, "malformed")
	}, Configured{ID: "c", SHA256: encodeHash(hashOf(long)), Tenant: "t"})
	key := Key{Tenant: "t", Scope: ScopeFull}
	for n, want := range map[int]bool{0: false, 1: true, maxModels: true, maxModels + 1: false} {
		key.Models = nil
		for i := range n {
			key.Models = append(key.Models, fmt.Sprintf("m%d", i))
		}
		if err := key.validate(); (err == nil) != want {
			t.Errorf("a key with %d models: %v", n, err)
		}
	}
}
