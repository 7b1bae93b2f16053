package schemas

import (
	"errors"
	"fmt"
	"testing"
)

// A cancel is obeyed whatever its payload: what cannot be read is the caller's.
func TestCancelOfWhomever(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]CancelledBy{
		"": CancelledByCaller, "stop": CancelledByCaller, `{"by":"nobody"}`: CancelledByCaller, `{"by":1}`: CancelledByCaller,
		`{"by":"disconnect","note":"x"}`: CancelledByDisconnect, `{"by":"operator"}`: CancelledByOperator,
	} {
		if got := DecodeCancel([]byte(payload)).By; got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
}

func TestErrorTellsWhoCancelled(t *testing.T) {
	t.Parallel()
	for _, by := range []CancelledBy{CancelledByCaller, CancelledByDisconnect, CancelledByDeadline, CancelledByErasure, CancelledByOperator} {
		e := Cancelled(by)
		if got := AsError(fmt.Errorf("call: %w", e)).CancelledBy(); got != by {
			t.Errorf("%s tells %q", by, got)
		}
		if status := StatusOf(e); status != StatusCancelled && by != CancelledByDeadline || by == CancelledByDeadline && status != StatusExpired {
			t.Errorf("%s is %s", by, status)
		}
	}
	for e, want := range map[*Error]CancelledBy{
		Errorf(CodeCancelled, "x"): CancelledByCaller, Errorf(CodeDeadline, "x").WithCause(errors.New("y")): CancelledByDeadline, Errorf(CodeInternal, "x"): "",
	} {
		if got := e.CancelledBy(); got != want {
			t.Errorf("%s: %q, want %q", e.Code, got, want)
		}
	}
}

func TestTokenIDs(t *testing.T) {
	t.Parallel()
	var all [][]int64
	for ids, err := range ParseTokenIDs("17,4;;99") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ids)
	}
	if got := fmt.Sprint(all); got != "[[17 4] [] [99]]" {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"a", "-1", "1,,2", "1.5", "1 2"} {
		for _, err := range ParseTokenIDs(bad) {
			if err == nil {
				t.Errorf("%q was read", bad)
			}
		}
	}
}

func TestPrompt(t *testing.T) {
	t.Parallel()
	want := Prompt{Vocabulary: "my/llama 3", Total: 2, IDs: "1,2"}
	if got, err := ParsePrompt(want.String()); err != nil || got != want {
		t.Errorf("%q is %+v, %v", want.String(), got, err)
	}
	for _, bad := range []string{"", "m 1", "m x 1", "m -1 1", "=zz 1 1"} {
		if _, err := ParsePrompt(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
