package inference_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

func TestItemThatNamesNoRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: three}
	p.worker("w1", backend)
	for i, c := range []struct{ header, subject, reason string }{
		{"", "llm.dlq.invalid.m", "tenant is empty"},
		{"Llm-Tenant: acme\r\n", "llm.dlq.invalid.m", "request id is empty"},
		{"Llm-Tenant: a.b\r\nLlm-Request-Id: r1\r\n", "llm.dlq.invalid.m", `tenant has the character '.'`},
	} {
		p.tap.publish(schemas.WorkSubject("m"), c.header, "garbage")
		letter := p.tap.letters(i + 1)[i]
		if letter.subject != c.subject || !strings.Contains(letter.header, c.reason) || letter.body != "garbage" {
			t.Errorf("%q became %+v", c.header, letter)
		}
		p.gone(uint64(i + 1))
	}
	if n := backend.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestItemThatCannotBeRead(t *testing.T) {
	t.Parallel()
	const named = "Llm-Tenant: acme\r\nLlm-Request-Id: r1\r\n"
	for name, c := range map[string]struct {
		header, body string
		code         schemas.Code
		reason       string
	}{
		"no dispatch":                   {"", sampled, schemas.CodeInternal, "Llm-Dispatch"},
		"a bad dispatch":                {"Llm-Dispatch: x\r\n", sampled, schemas.CodeInternal, "Llm-Dispatch"},
		"a bad deadline":                {"Llm-Dispatch: 1\r\nLlm-Deadline: soon\r\n", sampled, schemas.CodeInternal, "Llm-Deadline"},
		"the object of another":         {"Llm-Dispatch: 1\r\nLlm-Object: acme/r2/w/0 1 " + strings.Repeat("0", 64) + "\r\n", "", schemas.CodeInternal, "object of another request"},
		"an object that is gone":        {"Llm-Dispatch: 1\r\nLlm-Object: acme/r1/w/0 1 " + strings.Repeat("0", 64) + "\r\n", "", schemas.CodeInternal, "no longer stored"},
		"no JSON":                       {"Llm-Dispatch: 1\r\n", "garbage", schemas.CodeInvalidJSON, "JSON"},
		"no body":                       {"Llm-Dispatch: 1\r\n", "", schemas.CodeInvalidJSON, "empty"},
		"no messages":                   {"Llm-Dispatch: 1\r\n", `{"model":"m"}`, schemas.CodeMissingParameter, "messages"},
		"the body of another operation": {"Llm-Dispatch: 1\r\nLlm-Op: embedding\r\n", sampled, schemas.CodeMissingParameter, "input"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			backend := &fake{words: three, deterministic: true}
			p.worker("w1", backend)
			p.tap.publish(schemas.WorkSubject("m"), named+c.header, c.body)
			id := identity("r1")
			if got := p.read(id); got.code() != c.code || got.text != "" {
				t.Errorf("answered %q and %q", got.text, got.code())
			}
			r := p.ended(id)
			if time.Since(r.Accepted) > time.Minute || r.DurationMS > 60_000 {
				t.Errorf("accepted %v, took %v ms", r.Accepted, r.DurationMS)
			}
			letter := p.tap.letters(1)[0]
			if letter.subject != "llm.dlq.acme.m" || letter.body != c.body || !strings.Contains(letter.header, c.reason) {
				t.Errorf("letter %+v, want the reason %q", letter, c.reason)
			}
			p.gone(1)
			if n := backend.calls.Load(); n != 0 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// An item whose time of acceptance is missing has that of the item.
func TestItemWithoutATime(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: three})
	p.tap.publish(schemas.WorkSubject("m"), "Llm-Tenant: acme\r\nLlm-Request-Id: r1\r\nLlm-Dispatch: 1\r\n", sampled)
	p.once(identity("r1"))
	if r := p.ended(identity("r1")); time.Since(r.Accepted) > time.Minute {
		t.Errorf("accepted %v", r.Accepted)
	}
}

func TestBodyThatIsGoneAtATakeOver(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.append(id, started(1, 1))
	p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "other", Count: 1, Data: event(1, "one ", "null").Data})
	w := work("r1", 1, "")
	w.Object = &schemas.Object{Name: id.String() + "/w/0", Size: 9, Digest: strings.Repeat("0", 64)}
	p.worker("w1", &fake{words: three, deterministic: true})
	p.dispatch(w)
	if got := p.read(id); got.text != "one " || got.code() != schemas.CodeInternal {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(id)
	p.tap.letters(1)
}

// object stores a body of a request where large bodies are kept.
func (p *pipe) object(id schemas.Identity, data []byte) *schemas.Object {
	p.t.Helper()
	f := &schemas.Frame{Kind: schemas.KindAccepted, Writer: "ingest", Data: data}
	p.append(id, f)
	if f.Object == nil {
		p.t.Fatalf("%d bytes were not stored as an object", len(data))
	}
	return f.Object
}

// A body that cannot be read is tried again, but not for ever.
func TestDamagedBody(t *testing.T) {
	t.Parallel()
	p := setup(t)
	w := work("r1", 1, "")
	w.Deadline = time.Now().Add(time.Second)
	w.Object = p.object(w.Identity, make([]byte, schemas.InlineBytes+1))
	w.Object.Digest = strings.Repeat("0", 64)
	p.worker("w1", &fake{words: three})
	p.dispatch(w)
	if got := p.read(w.Identity); got.code() != schemas.CodeDeadline {
		t.Errorf("got %q", got.code())
	}
	p.ended(w.Identity)
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	p := setup(t)
	answer := unary(strings.Repeat("word ", 2<<20))
	p.worker("w1", &fake{words: three, whole: answer})
	body := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q}]}`, strings.Repeat("long ", 1<<20))
	w := work("r1", 1, "")
	w.Object = p.object(w.Identity, []byte(body))
	p.dispatch(w)
	if got := p.read(w.Identity); string(got.terminal.Data) != string(answer) {
		t.Errorf("%d bytes, want %d", len(got.terminal.Data), len(answer))
	}
	r := p.ended(w.Identity)
	if string(r.Response) != string(answer) || string(r.Request) != body {
		t.Errorf("the result holds %d and %d bytes", len(r.Response), len(r.Request))
	}
}

func TestLargeEvents(t *testing.T) {
	t.Parallel()
	p := setup(t)
	words := []string{strings.Repeat("a", schemas.InlineBytes+1), "b", strings.Repeat("c", schemas.InlineBytes*2/3), strings.Repeat("d", schemas.InlineBytes*2/3)}
	p.worker("w1", &fake{words: words})
	id := p.send("r1", sampled)
	if got := p.read(id); got.text != strings.Join(words, "") {
		t.Errorf("%d bytes", len(got.text))
	}
	p.ended(id)
	for _, f := range p.chain(id).Frames {
		if f.Object == nil && len(f.Data) > schemas.InlineBytes {
			t.Errorf("a message of %d bytes", len(f.Data))
		}
	}
}

// A chain that cannot be read is left as it is, and its item waits without harm to others until somebody erases it.
func TestDamagedChain(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.tap.publish(id.Chunks(), "Llm-Frame: nonsense\r\n", "garbage")
	p.until("the damage", func() bool { _, err := p.bus.Chain(t.Context(), id); return err != nil })
	backend := &fake{words: three}
	p.worker("w1", backend)
	item := p.dispatch(work("r1", 1, sampled))
	p.until("the lost claim", func() bool { return backend.calls.Load() == 1 && backend.running.Load() == 0 })
	p.once(p.send("r2", sampled))
	if exists, err := p.bus.WorkExists(t.Context(), item); err != nil || !exists {
		t.Errorf("the item exists: %t, %v", exists, err)
	}
	if err := p.bus.Erase(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	p.gone(item)
	if r, err := p.bus.Result(t.Context(), id); err != nil || r.Status != schemas.StatusDeleted {
		t.Errorf("%+v, %v", r, err)
	}
}
