package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// additions puts members of a later version into an encoded record, at the top and in the records within.
func additions(t *testing.T, data []byte) string {
	t.Helper()
	s := string(data)
	for _, place := range []string{`{"prompt_tokens":`, `{"attempt":1`} {
		if !strings.Contains(s, place) {
			t.Fatalf("sample has no %s: %s", place, s)
		}
		s = strings.ReplaceAll(s, place, `{"new_here":{"a":[1,"<x>"]},`+place[1:])
	}
	return strings.TrimSuffix(s, "}") + `,"new_at_top":12345678901234567890}`
}

func TestUnknownMembersRoundTrip(t *testing.T) {
	tests := map[string]struct {
		data   []byte
		decode func([]byte) ([]byte, error)
	}{
		"summary": {summarySample().Encode(), func(data []byte) ([]byte, error) {
			s, err := DecodeSummary(data)
			if err != nil {
				return nil, err
			}
			return s.Encode(), nil
		}},
		"result": {resultSample().Encode(), func(data []byte) ([]byte, error) {
			r, err := DecodeResult(data)
			if err != nil {
				return nil, err
			}
			return r.Encode(), nil
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := additions(t, tt.data)
			out, err := tt.decode([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(object(t, []byte(in)), object(t, out)); diff != "" {
				t.Errorf("a member was lost or changed (-want +got):\n%s", diff)
			}
		})
	}
}

func object(t *testing.T, data []byte) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var v map[string]any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMemberInOtherCaseIsNotUnknown(t *testing.T) {
	s, err := DecodeSummary([]byte(`{"Status":"failed","status":"completed","attempts":1,"-":7}`))
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeSummary(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if again.Status != StatusCompleted {
		t.Errorf("status after a round trip = %q, want %q", again.Status, StatusCompleted)
	}
	if string(again.Extra["-"]) != "7" {
		t.Errorf("unknown member %q was lost: %v", "-", again.Extra)
	}
}

func TestFrameKeepsUnknownWordsAndHeaders(t *testing.T) {
	h := Header{HeaderFrame: {"delta 1 W 0 1 later words"}, "Llm-Later": {"x"}}
	f, err := DecodeFrame(h, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Header(), h[HeaderFrame][0]; got != want {
		t.Errorf("Llm-Frame = %q, want %q", got, want)
	}
}

func TestDecodersAcceptUnknownMembersOfTheOthers(t *testing.T) {
	if _, err := DecodeHeartbeat([]byte(`{"v":9,"worker":"w","new":1,"models":[{"model":"m","slots":1,"used":0,"new":{}}]}`)); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	if _, err := DecodeError([]byte(`{"error":{"message":"m","type":"t","param":null,"code":"later_code","new":1},"new":2}`)); err != nil {
		t.Errorf("error object: %v", err)
	}
	if o, err := ParseObject("a/b/c/0 1 " + digest + " later"); err != nil || o.Digest != digest {
		t.Errorf("object = %v, %v", o, err)
	}
}

func TestNullIsNoRecord(t *testing.T) {
	if s, err := DecodeSummary([]byte("null")); err == nil {
		t.Errorf("summary null = %+v, want an error", s)
	}
	if r, err := DecodeResult([]byte("null")); err == nil {
		t.Errorf("result null = %+v, want an error", r)
	}
}

// TestResultKeepsTheBody checks that a prompt full of markup is not changed by being recorded.
func TestResultKeepsTheBody(t *testing.T) {
	for _, body := range []string{`{"content":"<b>&\u2028</b>","big":12345678901234567890}`, "not JSON <", ""} {
		r := &Result{V: 1, Tenant: "acme", RequestID: "r1"}
		r.SetRequest([]byte(body))
		got, err := DecodeResult(r.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if stored := string(got.Request) + string(got.RequestRaw); stored != body {
			t.Errorf("recorded body = %q, want %q", stored, body)
		}
		if got.BodyHash != BodyHash([]byte(body)) {
			t.Errorf("body hash of %q changed", body)
		}
	}
}

func TestErrorText(t *testing.T) {
	wrapped := Errorf(CodeInternal, "read body: %w", io.ErrUnexpectedEOF)
	if got, want := wrapped.Error(), "internal_error: read body: unexpected EOF"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	hidden := Errorf(CodeInternal, "try again").WithCause(io.ErrUnexpectedEOF)
	if got, want := hidden.Error(), "internal_error: try again: unexpected EOF"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if strings.Contains(string(hidden.Encode()), "EOF") {
		t.Error("the caller sees the cause")
	}
	foreign := AsError(fmt.Errorf("secret detail: %w", io.EOF))
	if foreign.Code != CodeInternal || strings.Contains(string(foreign.Encode()), "secret") || !errors.Is(foreign, io.EOF) {
		t.Errorf("AsError of a foreign error = %v, encoded %s", foreign, foreign.Encode())
	}
}

// TestRecordWritesWhatEncodingJSONWrites checks values for which a plain writer would be wrong.
func TestRecordWritesWhatEncodingJSONWrites(t *testing.T) {
	for _, text := range []string{"", "plain", `quote " and \`, "line\nfeed", "\x00\x1f\x7f", "ü 😀 \u2028", "bad \xff utf-8", "<&>"} {
		want := encodeJSON(struct {
			Attempt  int       `json:"attempt"`
			Backend  string    `json:"backend"`
			Started  time.Time `json:"started"`
			Duration float64   `json:"duration_ms"`
			Cause    string    `json:"cause,omitempty"`
		}{1, text, accepted.Add(time.Nanosecond), 1e-7, text})
		try := Try{Attempt: 1, Backend: text, Started: accepted.Add(time.Nanosecond), DurationMS: 1e-7, Cause: text}
		got := appendRecord(nil, &try)
		if string(got) != string(want) {
			t.Errorf("wrote %s, want %s", got, want)
		}
		var back Try
		if err := decodeRecord(got, &back); err != nil || back.Backend != strings.ToValidUTF8(text, "\ufffd") {
			t.Errorf("read %+v, %v back from %s", back, err, got)
		}
	}
}

func TestRecordIsOneLine(t *testing.T) {
	r := &Result{V: 1, Tenant: "acme", RequestID: "r1"}
	r.SetRequest([]byte("{\r\n  \"model\": \"a b\",\n  \"n\": [1,\n2]\n}"))
	data := r.Encode()
	if strings.ContainsAny(string(data), "\r\n") || !strings.Contains(string(data), `"request":{"model":"a b","n":[1,2]}`) {
		t.Errorf("wrote %s", data)
	}
}

func TestDecodeRecordRefusesWhatIsNoRecord(t *testing.T) {
	for _, data := range []string{"", " ", "{", "[]", `"x"`, "1", "{} {}", `{"status":1}`, `{"attempts":"1"}`, `{"usage":[]}`, `{"tries":{}}`, `{"tries":[1]}`, `{"usage":{"prompt_tokens":1.5}}`} {
		if s, err := DecodeSummary([]byte(data)); err == nil {
			t.Errorf("%q was read as %+v", data, s)
		}
	}
}

func TestDecodeRecordReadsWhatJSONAllows(t *testing.T) {
	s, err := DecodeSummary([]byte(" {\t\"st\\u0061tus\" :\r\n \"f\\u0061iled\" , \"attempts\" : 3 , \"usage\":null,\"tries\":[ null , {\"attempt\":2} ],\"finish_reasons\":[ \"a\" ],\"x\":\"}\\\"]\" } "))
	if err != nil {
		t.Fatal(err)
	}
	want := &Summary{Status: StatusFailed, Attempts: 3, Tries: []Try{{}, {Attempt: 2}}, FinishReasons: []string{"a"}, Extra: Extra{"x": json.RawMessage(`"}\"]"`)}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
