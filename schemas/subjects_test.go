package schemas

import (
	"strings"
	"testing"
	"time"
)

// TestSubjectsMatchTheirStreams checks every subject that is built against the space that a stream binds for it.
func TestSubjectsMatchTheirStreams(t *testing.T) {
	id := identity
	tests := map[string]string{
		RequestSubject("acme", "gpt-4=2E1"): RequestsAll,
		WorkSubject("gpt-4=2E1"):            WorkAll,
		id.Chunks():                         ChunksAll,
		id.Replies():                        RepliesAll,
		id.Result():                         ResultsAll,
		id.Cancel():                         CancelAll,
		id.Attach():                         AttachAll,
		id.Position():                       PositionsAll,
		id.Heir():                           HeirsAll,
		DLQSubject("acme", "gpt-4=2E1"):     DLQAll,
		EventSubject("takeover"):            EventsAll,
		WorkerSubject("w1"):                 WorkersAll,
		RouterSubject("r1"):                 RoutersAll,
		QueueFilter(3):                      QueueAll,
	}
	for subject, space := range tests {
		if !covers(space, subject) {
			t.Errorf("%s is not in %s", subject, space)
		}
	}
}

func covers(space, subject string) bool {
	want, got := strings.Split(space, "."), strings.Split(subject, ".")
	for i, token := range want {
		if token == ">" {
			return len(got) > i
		}
		if i >= len(got) || token != "*" && token != got[i] {
			return false
		}
	}
	return len(want) == len(got)
}

func TestParseQueueSubject(t *testing.T) {
	tenant, token, ok := ParseQueueSubject("llm.queue.2.acme.gpt-4=2E1")
	if !ok || tenant != "acme" || token != "gpt-4=2E1" {
		t.Errorf("ParseQueueSubject = %q, %q, %v", tenant, token, ok)
	}
	for _, subject := range []string{"", "llm.queue.2.acme", "llm.requests.acme.m", "llm.queue.2.acme.m.x"} {
		if _, _, ok := ParseQueueSubject(subject); ok {
			t.Errorf("ParseQueueSubject(%q) is ok", subject)
		}
	}
}

func TestDecodeRequestDirectDoor(t *testing.T) {
	const subject = "llm.queue.2.acme.echo"
	t.Run("no id", func(t *testing.T) {
		r, err := DecodeRequest(subject, 17, nil, []byte("{}"))
		if err != nil || r.Request != "s17" || r.Op != OpChat || r.Priority != PriorityNormal {
			t.Errorf("request = %+v, %v", r, err)
		}
	})
	t.Run("reserved id is answered under its own", func(t *testing.T) {
		r, err := DecodeRequest(subject, 17, Header{HeaderRequestID: {"s3"}}, nil)
		if err == nil || r == nil || r.Request != "s17" {
			t.Errorf("request = %+v, %v", r, err)
		}
	})
	t.Run("smuggled headers are dropped", func(t *testing.T) {
		h := Header{
			HeaderTenant: {"other"}, HeaderDispatch: {"7"}, HeaderWork: {"1"}, HeaderExpectedSeq: {"9"}, "Nats-Rollup": {"all"},
			HeaderSummary: {"{}"}, HeaderCacheTTL: {"60"},
		}
		r, err := DecodeRequest(subject, 17, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		work := &Work{Request: *r, Dispatch: 1, Accepted: time.UnixMilli(1)}
		got := work.Encode()
		for _, key := range []string{HeaderWork, HeaderExpectedSeq, "Nats-Rollup", HeaderSummary} {
			if _, ok := got[key]; ok {
				t.Errorf("%s came through", key)
			}
		}
		if get(got, HeaderTenant) != "acme" || get(got, HeaderDispatch) != "1" || get(got, HeaderCacheTTL) != "60" {
			t.Errorf("work item headers = %v", got)
		}
	})
	t.Run("an object of another tenant", func(t *testing.T) {
		h := Header{HeaderRequestID: {"r1"}, HeaderObject: {"other/r1/w/0 5 " + digest}}
		if _, err := DecodeRequest(subject, 17, h, nil); err == nil {
			t.Error("it was accepted")
		}
	})
	t.Run("bad values", func(t *testing.T) {
		for _, h := range []Header{
			{HeaderDeadline: {"tomorrow"}}, {HeaderDeadline: {"0"}}, {HeaderDeadline: {"-5"}}, {HeaderPriority: {"urgent"}},
			{HeaderOp: {"dance"}}, {HeaderOnDisconnect: {"x"}}, {HeaderRequestID: {"a b"}}, {HeaderRequestID: {strings.Repeat("a", 65)}},
			{HeaderObject: {"x"}},
		} {
			r, err := DecodeRequest(subject, 17, h, nil)
			if err == nil || r == nil || AsError(err).Code != CodeInvalidValue {
				t.Errorf("headers %v: request %+v, error %v", h, r, err)
			}
		}
	})
}

func TestErrorCodes(t *testing.T) {
	tests := map[Code]struct {
		kind      string
		retryable bool
		status    Status
	}{
		CodeInvalidJSON:         {"invalid_request_error", false, StatusRejected},
		CodeModelNotFound:       {"invalid_request_error", false, StatusRejected},
		CodeModelNotAllowed:     {"permission_error", false, StatusRejected},
		CodeRateLimit:           {"requests", true, StatusRejected},
		CodeQuota:               {"insufficient_quota", false, StatusRejected},
		CodeSlowDown:            {"rate_limit_error", true, StatusRejected},
		CodeOverloaded:          {"service_unavailable_error", true, StatusRejected},
		CodeUpstreamError:       {"server_error", true, StatusFailed},
		CodeUpstreamInterrupted: {"server_error", true, StatusFailed},
		CodeStreamDiverged:      {"server_error", false, StatusFailed},
		CodePoison:              {"server_error", false, StatusFailed},
		CodeCancelled:           {"server_error", true, StatusCancelled},
		CodeDeadline:            {"server_error", true, StatusExpired},
		CodeUpstreamRejected:    {"invalid_request_error", false, StatusFailed},
	}
	for code, want := range tests {
		e := Errorf(code, "x")
		if e.Type() != want.kind || e.Retryable() != want.retryable || StatusOf(e) != want.status {
			t.Errorf("%s: type %q, retryable %v, status %q; want %+v", code, e.Type(), e.Retryable(), StatusOf(e), want)
		}
	}
}

func TestEdgeSubjects(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]bool{
		"_INBOX_acme.x": true, "_INBOX_acme.x.y": true, "_INBOX_acme": false, "_INBOX_acme.": false, "_INBOX_acmes.x": false, "_INBOX_.x": false,
		"_INBOX.x": false, "_INBOX_acme.*": false, "_INBOX_acme.>": false, "_INBOX_acme.x.>": false, "_INBOX_acme.a b": false, "": false,
	} {
		if got := IsEdgeInbox("acme", reply); got != want {
			t.Errorf("%q is acme's: %v", reply, got)
		}
	}
	for subject, want := range map[string]string{
		"llm.chat.acme.gpt-4=2E1": "acme gpt-4=2E1", "llm.chat.acme": "", "llm.chat.acme.m.x": "", "llm.resume.acme.m": "", "llm.chat..": " ",
	} {
		tenant, token, ok := ParseChatSubject(subject)
		if ok != (want != "") || ok && tenant+" "+token != want {
			t.Errorf("%q: %q %q %v", subject, tenant, token, ok)
		}
	}
	if tenant, token, ok := ParseChatSubject(ChatSubject("a", "m")); tenant != "a" || token != "m" || !ok {
		t.Errorf("round trip: %q %q %v", tenant, token, ok)
	}
}

func TestWorkNamesOnlyAPriorityThatIsNotNormal(t *testing.T) {
	for _, priority := range []Priority{PriorityInteractive, PriorityNormal, PriorityBatch} {
		w := &Work{Request: Request{Identity: Identity{Tenant: "acme", Request: "r1"}, ModelToken: "m", Op: OpChat, Priority: priority}, Dispatch: 1}
		h := w.Encode()
		if _, named := h[HeaderPriority]; named == (priority == PriorityNormal) {
			t.Errorf("%s: header %s is %q", priority, HeaderPriority, h[HeaderPriority])
		}
		if read, err := DecodeWork("m", h, nil); err != nil || read.Priority != priority {
			t.Errorf("%s: read as %+v, %v", priority, read, err)
		}
	}
}
