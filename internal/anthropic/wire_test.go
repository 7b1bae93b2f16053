package anthropic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func TestAppendEvent(t *testing.T) {
	t.Parallel()
	cursor := schemas.Cursor{Request: "req_1", Index: 18446744073709551615}
	for data, name := range map[string]string{
		`{"type":"message_stop"}`: "message_stop", `{"index":0, "type" : "content_block_stop"}`: "content_block_stop",
		`{"type":"a\u0062c"}`: "abc", `{"type":"a\nb"}`: "", `{}`: "", `{"type":7}`: "", `{"type":""}`: "",
	} {
		got := string(AppendEvent([]byte("x"), cursor, []byte(data)))
		if want := "xid: req_1.18446744073709551615\nevent: " + name + "\ndata: " + data + "\n\n"; got != want {
			t.Errorf("%s is written %q, want %q", data, got, want)
		}
		if size := len(got) - 1 - len(data); size > EventBytes(cursor.Request) {
			t.Errorf("%s: %d bytes around the data, more than EventBytes says", data, size)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[schemas.Code]form{
		schemas.CodeInvalidJSON: {400, "invalid_request_error"}, schemas.CodeUnsupported: {400, "invalid_request_error"},
		schemas.CodeContextLength: {400, "invalid_request_error"}, schemas.CodeInvalidKey: {401, "authentication_error"},
		schemas.CodeQuota: {402, "billing_error"}, schemas.CodeModelNotAllowed: {403, "permission_error"}, schemas.CodeScope: {403, "permission_error"},
		schemas.CodeModelNotFound: {404, "not_found_error"}, schemas.CodeStreamExpired: {404, "not_found_error"},
		schemas.CodeRequestTooLarge: {413, "request_too_large"}, schemas.CodeIdempotencyMismatch: {422, "invalid_request_error"},
		schemas.CodeRateLimit: {429, "rate_limit_error"}, schemas.CodeSlowDown: {429, "rate_limit_error"}, schemas.CodeCancelled: {499, "api_error"},
		schemas.CodeInternal: {500, "api_error"}, schemas.CodeUpstreamError: {500, "api_error"}, schemas.CodeUpstreamAuth: {500, "api_error"},
		schemas.CodeUpstreamTimeout: {504, "timeout_error"}, schemas.CodeDeadline: {504, "timeout_error"},
		schemas.CodeOverloaded: {529, "overloaded_error"}, schemas.CodeUnavailable: {529, "overloaded_error"}, schemas.CodeShutdown: {529, "overloaded_error"},
	} {
		e := schemas.Errorf(code, "say \"why\"\n").WithParam("p")
		var got any
		if err := json.Unmarshal(EncodeError(e, "req_1"), &got); err != nil {
			t.Fatal(err)
		}
		document := map[string]any{"type": "error", "request_id": "req_1", "error": map[string]any{
			"type": want.kind, "message": "say \"why\"\n", "details": map[string]any{"error_code": string(code), "param": "p"},
		}}
		if diff := cmp.Diff(any(document), got); diff != "" || Status(code) != want.status {
			t.Errorf("%s: status %d, want %d (-want +got):\n%s", code, Status(code), want.status, diff)
		}
	}
	event := string(AppendError(nil, schemas.Errorf(schemas.CodeOverloaded, "full"), "req_1"))
	want := "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"full\",\"details\":{\"error_code\":\"server_is_overloaded\"}},\"request_id\":\"req_1\"}\n\n"
	if event != want {
		t.Errorf("error event %q, want %q", event, want)
	}
}

// TestErrorsOfServers has each error that an Anthropic server sends in a stream, where no status says what it is.
func TestErrorsOfServers(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]schemas.Code{
		"overloaded_error": schemas.CodeOverloaded, "rate_limit_error": schemas.CodeRateLimit, "api_error": schemas.CodeUpstreamError,
		"timeout_error": schemas.CodeUpstreamTimeout, "invalid_request_error": schemas.CodeUpstreamRejected, "request_too_large": schemas.CodeRequestTooLarge,
		"authentication_error": schemas.CodeUpstreamAuth, "permission_error": schemas.CodeUpstreamAuth, "billing_error": schemas.CodeUpstreamAuth,
	} {
		var e Event
		if err := e.Peek([]byte(`{"type":"error","error":{"type":"` + kind + `","message":"canary"},"request_id":"req_up"}`)); err != nil || !e.Failed() {
			t.Fatalf("%s: %v", kind, err)
		}
		if got := openai.EventError([]byte(e.Error)).Code; got != want {
			t.Errorf("%s is %s, want %s", kind, got, want)
		}
	}
}

func TestPeekRefuses(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "x", "[]", "{}", `{"type":1}`, `{"type":"message_stop"`, strings.Repeat("[", 1<<20), `{"type":"x","a":` + strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2001)} {
		if new(Event).Peek([]byte(data)) == nil {
			t.Errorf("%.40q is taken for an event", data)
		}
	}
}
