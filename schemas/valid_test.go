package schemas

import (
	"encoding/json"
	"strings"
	"testing"
)

func FuzzValid(f *testing.F) {
	for _, s := range []string{
		"", " ", "{}", "[]", `""`, "0", "-0", "01", "-", "1.", ".5", "1.5e+10", "1e", "1E-7", "true", "truex", "nul", "\x00", "{}\x00", " null\r\n\t",
		`{"a":1,}`, `{,}`, `[1,]`, `[,1]`, `[1 2]`, `{"a" : [ 1 , { } , null ] }`, `{"a"}`, `{1:2}`, `{"a":1 "b":2}`, `[}`, `[]]`, "{} {}",
		`"\u12aF"`, `"\u12g4"`, `"\u12`, `"\x"`, `"\`, `"`, "\"\x1f\"", "\"\x7f\xff\"", `"\\\"\/\b\f\n\r\t"`, "\ufeff{}", "[1,\v2]",
		`"0123456789abcdefgh\\"`, `"0123456789abcdef"`, `"0123456789abcdef`, "\"01234567é\x0189 \"", "\"0123456789\x7f\x80\xff!#[]\"", `{"01234567":"89","0123456":1}`,
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth), strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1),
		string(resultSample().Encode()),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, want := valid(data), json.Valid(data); got != want {
			t.Errorf("valid(%.200q) = %v, and encoding/json says %v", data, got, want)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	data := resultSample().Encode()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		valid(data)
	}
}
