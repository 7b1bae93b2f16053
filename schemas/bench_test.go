package schemas

import "testing"

func BenchmarkResultEncode(b *testing.B) {
	r := resultSample()
	b.ReportAllocs()
	for b.Loop() {
		r.Encode()
	}
}

func BenchmarkResultDecode(b *testing.B) {
	data := resultSample().Encode()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := DecodeResult(data); err != nil {
			b.Fatal(err)
		}
	}
}
