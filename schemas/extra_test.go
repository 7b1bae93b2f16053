package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

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
