package openai

import (
	"encoding/json"
	"strings"
	"testing"
)

// vector is 1, -2.5 and 3.4e-5 in both forms.
const (
	asFloats = `[1,-2.5,3.4e-05]`
	asBase64 = `"AACAPwAAIMA5mw44"`
)

func embeddings(vectors ...string) string {
	var data []string
	for i, v := range vectors {
		data = append(data, ` {"object":"embedding","embedding" : `+v+`,"index":`+string(rune('0'+i))+`}`)
	}
	return `{"object":"list","data":[` + strings.Join(data, ",") + ` ],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3},"x":[1]}`
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, format, in, want string }{
		{"floats as they are", EncodingFloat, embeddings("[1, -2.50, 3.4E-5]"), embeddings("[1, -2.50, 3.4E-5]")},
		{"base64 as it is", EncodingBase64, embeddings(asBase64, asBase64), embeddings(asBase64, asBase64)},
		{"floats to base64", EncodingBase64, embeddings("[1, -2.50, 3.4E-5]", asFloats), embeddings(asBase64, asBase64)},
		{"base64 to floats", EncodingFloat, embeddings(asBase64, asBase64), embeddings(asFloats, asFloats)},
		{"mixed", EncodingFloat, embeddings(asFloats, asBase64), embeddings(asFloats, asFloats)},
		{"empty vectors", EncodingBase64, embeddings("[]"), embeddings(`""`)},
		{"not finite", EncodingFloat, embeddings(`"AACAfwAAwH8="`), embeddings("[null,null]")},
		{"escaped base64", EncodingFloat, embeddings(`"\u0041ACAPwAAIMA5mw44"`), embeddings(asFloats)},
	} {
		got, count, err := Embeddings([]byte(test.in), test.format)
		if err != nil || string(got) != test.want || count != strings.Count(test.in, `"object":"embedding"`) {
			t.Errorf("%s: %d vectors, %v\n got %s\nwant %s", test.name, count, err, got, test.want)
		}
	}
	for _, test := range []struct{ name, format, in string }{
		{"no data", EncodingFloat, `{"object":"list"}`},
		{"no vector", EncodingFloat, embeddings(`null`)},
		{"damaged base64", EncodingFloat, embeddings(`"!"`)},
		{"half a float", EncodingFloat, embeddings(`"AAA="`)},
		{"not all numbers", EncodingBase64, embeddings(`[1,"2"]`)},
	} {
		if got, _, err := Embeddings([]byte(test.in), test.format); err == nil {
			t.Errorf("%s: got %s", test.name, got)
		}
	}
}

// A vector survives the way there and back bit by bit.
func FuzzEmbeddings(f *testing.F) {
	f.Add(embeddings(asFloats))
	f.Add(embeddings(asBase64))
	f.Add(embeddings("[1e999]"))
	f.Fuzz(func(t *testing.T, in string) {
		if !json.Valid([]byte(in)) {
			return
		}
		once, n, err := Embeddings([]byte(in), EncodingBase64)
		if err != nil {
			return
		}
		floats, m, err := Embeddings(once, EncodingFloat)
		if err != nil {
			return // a server's own base64 may be anything
		}
		again, k, err := Embeddings(floats, EncodingBase64)
		if strings.Contains(string(floats), "null") {
			return // what JSON cannot say
		}
		if err != nil || n != m || m != k || string(again) != string(once) {
			t.Errorf("%v\n%s\n%s\n%s", err, once, floats, again)
		}
	})
}

func BenchmarkEmbeddings(b *testing.B) {
	vector := make([]float32, 1536)
	for i := range vector {
		vector[i] = 1 / float32(i+3)
	}
	answer := []byte(embeddings(string(AppendFloats(nil, vector))))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Embeddings(answer, EncodingBase64); err != nil {
			b.Fatal(err)
		}
	}
}
