package schemas

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// oneToken reports why s cannot be one token of a subject, "" when it can.
func oneToken(s string, maxBytes int) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > maxBytes:
		return "it is too long"
	case strings.ContainsAny(s, ".*>/\\$") || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r > unicode.MaxASCII || r < 0x21 }):
		return "it has a character with a meaning"
	}
	return ""
}

var hostileNames = []string{
	"", "gpt-4.1", "a b", "*", ">", "a.b", "meta-llama/Llama-3.1-8B:free", "ü", "\x00", "\xff", "=", "=2E", "=2e", "=41", "a=",
	"s17", "a\nb", " ", "\t", "$SYS", strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat(".", 43), strings.Repeat("a", 129),
}

func FuzzModel(f *testing.F) {
	for _, name := range hostileNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := EncodeModel(s); err == nil {
			if why := oneToken(token, MaxModelTokenBytes); why != "" {
				t.Errorf("EncodeModel(%q) = %q: %s", s, token, why)
			}
			if back, err := DecodeModel(token); err != nil || back != s {
				t.Errorf("DecodeModel(EncodeModel(%q)) = %q, %v", s, back, err)
			}
		} else if s != "" && len(s)*3 <= MaxModelTokenBytes {
			t.Errorf("EncodeModel(%q) refused a name that fits: %v", s, err)
		}
		if model, err := DecodeModel(s); err == nil {
			if token, err := EncodeModel(model); err != nil || token != s {
				t.Errorf("EncodeModel(DecodeModel(%q)) = %q, %v: a model has two tokens", s, token, err)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	for _, name := range hostileNames {
		f.Add(name, "req_1")
		f.Add("acme", name)
	}
	f.Fuzz(func(t *testing.T, tenant, request string) {
		id := Identity{Tenant: tenant, Request: request}
		if id.Validate() != nil {
			return
		}
		for _, token := range []string{tenant, request} {
			if why := oneToken(token, MaxTokenBytes); why != "" {
				t.Fatalf("%q was accepted: %s", token, why)
			}
		}
		for _, subject := range []string{id.Chunks(), id.Replies(), id.Result(), id.Cancel(), id.Attach()} {
			if back, ok := ParseIdentity(subject); !ok || back != id {
				t.Errorf("ParseIdentity(%q) = %v, %v", subject, back, ok)
			}
		}
		cursor := Cursor{Request: request, Index: 12}
		if back, err := ParseCursor(cursor.String()); err != nil || back != cursor {
			t.Errorf("ParseCursor(%q) = %v, %v", cursor, back, err)
		}
		if ValidateCallerID(request) == nil && isSequenceID(request) {
			t.Errorf("a caller may choose %q", request)
		}
	})
}

func FuzzIdempotencyID(f *testing.F) {
	f.Add("acme", "key")
	f.Add("acme\x00k", "ey")
	f.Fuzz(func(t *testing.T, tenant, key string) {
		id := RerunID(IdempotencyID(tenant, key), 9999)
		if err := ValidateCallerID(id); err != nil {
			t.Errorf("IdempotencyID(%q, %q) = %q: %v", tenant, key, id, err)
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	for _, s := range samples() {
		if frame, ok := s.value.(*Frame); ok {
			f.Add(frame.Header(), frame.Object.String(), frame.Data)
		}
	}
	f.Add("delta 1 w 18446744073709551615 2147483647", "", []byte("\n\n"))
	f.Add("delta 1 w 0 3", "", []byte("a\nb"))
	f.Add("end 1 w 0 1", "x", []byte{})
	f.Add("delta 1 w 0 2", "", []byte("a\nb\nc"))
	f.Fuzz(func(t *testing.T, line, object string, data []byte) {
		frame, err := DecodeFrame(Header{HeaderFrame: {line}, HeaderObject: {object}, HeaderWork: {"1"}, HeaderDispatch: {"1"}}, data)
		if err != nil {
			return
		}
		again, err := DecodeFrame(frame.Encode(), data)
		if err != nil {
			t.Fatalf("a decoded frame does not encode into one: %v", err)
		}
		if !again.Same(frame) || again.Header() != frame.Header() || again.Count != frame.Count {
			t.Errorf("frame %q became %q", frame.Header(), again.Header())
		}
		if frame.Object == nil {
			checkEvents(t, frame)
		}
	})
}

func FuzzDecodeWork(f *testing.F) {
	f.Add("gpt-4=2E1", "acme", "req_1", "1", "1795521600000", "", "chat")
	f.Add("", "", "", "", "", "a b c", "x")
	f.Fuzz(func(t *testing.T, token, tenant, request, dispatch, at, object, op string) {
		h := Header{
			HeaderTenant: {tenant}, HeaderRequestID: {request}, HeaderDispatch: {dispatch}, HeaderAccepted: {at},
			HeaderDeadline: {at}, HeaderObject: {object}, HeaderOp: {op},
		}
		work, err := DecodeWork(token, h, nil)
		if err != nil {
			return
		}
		again, err := DecodeWork(token, work.Encode(), nil)
		if err != nil || again.MsgID() != work.MsgID() || again.Op != work.Op || !again.Deadline.Equal(work.Deadline) {
			t.Errorf("work item %+v became %+v, %v", work, again, err)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add("llm.queue.2.acme.gpt-4=2E1", "req_1", "1795521600000", "normal", []byte("{}"))
	f.Add("llm.queue.2.a.b.c", "s17", "-1", "x", []byte{0xff})
	f.Fuzz(func(t *testing.T, subject, request, deadline, priority string, body []byte) {
		h := Header{HeaderRequestID: {request}, HeaderDeadline: {deadline}, HeaderPriority: {priority}}
		r, err := DecodeRequest(subject, 17, h, body)
		if r != nil && r.Validate() != nil {
			t.Errorf("a request with the identity %v was handed out", r.Identity)
		}
		if err == nil && r == nil {
			t.Error("neither a request nor an error")
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(resultSample().Encode())
	f.Add([]byte(`{"tenant":"a","request_id":"b","Tenant":"*","usage":{"x":1},"tries":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeResult(data)
		if err != nil {
			return
		}
		again, err := DecodeResult(r.Encode())
		if err != nil {
			t.Fatalf("a decoded result does not encode into one: %v", err)
		}
		if got, want := string(again.Encode()), string(r.Encode()); got != want {
			t.Errorf("a second round trip changed the record:\n%s\n%s", want, got)
		}
	})
}

func FuzzParseObject(f *testing.F) {
	f.Add("acme/req_1/w1/0 300000 " + digest)
	f.Add("a 1_0 " + digest)
	f.Add("  ")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseObject(s)
		if err != nil || o == nil {
			return
		}
		if !strings.HasPrefix(s, o.String()) && o.Size < 0 {
			t.Errorf("ParseObject(%q) = %+v", s, o)
		}
		if again, err := ParseObject(o.String()); err != nil || *again != *o {
			t.Errorf("object %+v became %+v, %v", o, again, err)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add("req_1.0")
	f.Add("req_1.-1")
	f.Add("req.1.2")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err == nil && ValidateRequestID(c.Request) != nil {
			t.Errorf("ParseCursor(%q) = %+v", s, c)
		}
	})
}

// FuzzStartingAfter reads what callers send as starting_after, and as the payload of a resume.
func FuzzStartingAfter(f *testing.F) {
	for _, cursor := range []string{"0", "41", "r.41", "r.", ".41", "q.41", "-1", "+1", "1e3", "9223372036854775807", "9223372036854775808", "0x10", "１", "r.1.2", " 7", "result", ""} {
		f.Add("r", cursor)
	}
	f.Fuzz(func(t *testing.T, request, cursor string) {
		next, err := StartingAfter(request, cursor)
		if err != nil {
			if AsError(err).Code != CodeInvalidValue {
				t.Errorf("StartingAfter(%q, %q): %v is not the caller's fault", request, cursor, err)
			}
			return
		}
		if next == 0 {
			t.Fatalf("StartingAfter(%q, %q) begins with the event that was seen", request, cursor)
		}
		// Whatever was accepted means what its plain forms mean, and is about this request.
		if again, err := StartingAfter(request, strconv.FormatUint(next-1, 10)); err != nil || again != next {
			t.Errorf("StartingAfter(%q, %q) = %d, but the index gives %d, %v", request, cursor, next, again, err)
		}
		if id, _, named := strings.Cut(cursor, "."); named && id != request {
			t.Errorf("StartingAfter(%q, %q) takes the cursor of another request", request, cursor)
		}
		if ValidateRequestID(request) == nil {
			if again, err := After(request, Cursor{Request: request, Index: next - 1}.String()); err != nil || again != next {
				t.Errorf("the id of event %d gives %d, %v", next-1, again, err)
			}
		}
	})
}

// FuzzServiceSubject takes tenant, model and reply subject from what a NATS caller sends.
func FuzzServiceSubject(f *testing.F) {
	f.Add("llm.chat.acme.gpt-4=2E1", "_INBOX_acme.a.b")
	f.Add("llm.chat.acme.a.b", "_INBOX_acme.>")
	f.Add("llm.chat.", "_INBOX_acme2.x")
	f.Add("llm.chat.a.b", "_INBOX_a")
	f.Fuzz(func(t *testing.T, subject, reply string) {
		tenant, token, ok := ParseChatSubject(subject)
		if !ok || ValidateTenant(tenant) != nil {
			return
		}
		if _, err := DecodeModel(token); err == nil && ChatSubject(tenant, token) != subject {
			t.Errorf("%q is taken for a request of %q for %q", subject, tenant, token)
		}
		if !IsEdgeInbox(tenant, reply) {
			return
		}
		// An answer there is heard by the tenant's own connections and nobody else.
		if own := EdgeInbox(tenant) + "."; !strings.HasPrefix(reply, own) || strings.ContainsAny(reply, "*> ") {
			t.Errorf("tenant %q may be answered at %q", tenant, reply)
		}
		for _, other := range []string{tenant + "2", "x" + tenant, strings.ToUpper(tenant) + "_"} {
			if IsEdgeInbox(other, reply) {
				t.Errorf("%q is an inbox of %q and of %q", reply, tenant, other)
			}
		}
	})
}

// FuzzRequestHeaders passes on what a caller of a door may say of a request, and nothing else.
func FuzzRequestHeaders(f *testing.F) {
	f.Add("Llm-Priority", "batch", "Llm-Deadline", "1795521600000")
	f.Add("Nats-Msg-Id", "order-1", "Llm-Tenant", "other")
	f.Add("llm-priority", "batch", "Llm-Object", "a/b/c/0 1 "+digest)
	f.Add("Llm-Op", "sing", "Nats-Rollup", "all")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := Header{name1: {value1, "again"}, name2: {value2}}
		r := &Request{Identity: Identity{Tenant: "acme", Request: "r"}, ModelToken: "m", Header: h}
		sent := r.Encode()
		for name, values := range sent {
			if !slices.Contains(RequestHeaders(), name) || len(values) != 1 {
				t.Errorf("the header %q goes on as %q", name, values)
			}
		}
		if sent[HeaderRequestID][0] != "r" {
			t.Errorf("the request is sent as %q", sent[HeaderRequestID])
		}
		if ValidateRequestHeaders(sent) != nil {
			return
		}
		back, err := DecodeRequest("llm.queue.0.acme.m", 1, sent, nil)
		if err != nil || back.Identity != r.Identity {
			t.Errorf("headers that are valid at the door are not in the pipeline: %v", err)
		}
	})
}
