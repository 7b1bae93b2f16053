package schemas

import (
	"encoding/json"
	"strings"
	"testing"
)

// nest makes arrays within arrays, or objects within objects.
func nest(depth int, opening, closing string) []byte {
	return []byte(strings.Repeat(opening, depth) + "0" + strings.Repeat(closing, depth))
}

// FuzzValid asks encoding/json what JSON is.
func FuzzValid(f *testing.F) {
	f.Add(resultSample().Encode())
	for _, s := range []string{
		"", " ", "{", "}", "[", "]", "[]", "{}", " [ ] ", "\t{ }\r\n", "[1,2]", "[1,]", "[,1]", "[1 2]", `{"a":1}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a" : [ ] , "a" : { } }`, `{"a":1 "b":2}`, `["a":1]`, `{"a":1]`, `[1}`,
		"0", "-0", "-", "+1", "01", "-01", "10", "1.", ".1", "1.0", "-1.5", "1e", "1e+", "1E-7", "1e5", "1.2e3.4", "0x1", "1_0", "1a", "NaN", "12 ", "1,2",
		"true", "false", "null", "tru", "truer", "True", "nul", "fals", "nulls", "tfalse",
		`"`, `""`, `"a`, `"a" "b"`, `"\"`, `"\\"`, `"\""`, `"\/\b\f\n\r\t"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\uAbC9"`, `"\u`, `"\ud800"`, "\"\x00\"", "\"\x1f\"", "\"\x20\x7f\x80\xff\"", "\"a\nb\"", "\xef\xbb\xbf{}", "\f1", "1\x00", "\u00a01",
		`"12345678"`, `"1234567`, `"123456\n"`, `"1234567\"90"`, "\"12345678\x1f\"", "\"1234\xff678901234567890\"", "\"12345678\t\"", `"!!!!!!!!!!!!!!!!!"`, `"]]]]]]]]]]]]"`,
	} {
		f.Add([]byte(s))
	}
	for depth := maxNesting - 1; depth <= maxNesting+1; depth++ {
		f.Add(nest(depth, "[", "]"))
		f.Add(nest(depth, `{"":`, "}"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want := json.Valid(data)
		if got := valid(data); got != want {
			t.Errorf("valid(%.200q) = %v, want %v", data, got, want)
		}
		want = want && json.Valid([]byte("["+string(data)+"]"))
		if got := ValidMember(data); got != want {
			t.Errorf("ValidMember(%.200q) = %v, want %v", data, got, want)
		}
	})
}

func TestHostileNestingIsNotValid(t *testing.T) {
	t.Parallel()
	for _, opening := range []string{"[", `{"":`, `[{"":`, "[0,"} {
		if data := []byte(strings.Repeat(opening, MaxBodyBytes/len(opening))); valid(data) {
			t.Errorf("%.8s... is valid", data)
		}
	}
}

// A record that holds what nests as deep as JSON may would be none itself.
func TestResultOfDeepBodyCanBeRead(t *testing.T) {
	t.Parallel()
	for depth := maxNesting - 1; depth <= maxNesting+1; depth++ {
		r := &Result{V: 1, Tenant: "acme", RequestID: "r1"}
		r.SetRequest(nest(depth, "[", "]"))
		back, err := DecodeResult(r.Encode())
		if err != nil {
			t.Errorf("of a body %d deep: %v", depth, err)
		} else if string(back.Request)+string(back.RequestRaw) != string(nest(depth, "[", "]")) {
			t.Errorf("of a body %d deep the record has another", depth)
		}
	}
}

// What is wrong with a record is told as encoding/json tells it, whatever else is.
func TestDecodeRecordTellsWhere(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "{", `{"status":1`, `{"status":"x"}}`, `{"status":tru}`, "{\"status\":\"\n\"}", string(nest(maxNesting+1, `{"":`, "}"))} {
		_, err := DecodeSummary([]byte(data))
		if want := json.Unmarshal([]byte(data), new(any)); err == nil || !strings.HasSuffix(err.Error(), want.Error()) {
			t.Errorf("%.40q: %v, want %v", data, err, want)
		}
	}
}
