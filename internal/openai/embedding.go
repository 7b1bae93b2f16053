package openai

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/tidwall/gjson"
)

// Forms of an embedding, the values of encoding_format.
const (
	EncodingFloat  = "float"  // an array of numbers, the default
	EncodingBase64 = "base64" // little-endian float32
)

// MaxEmbeddingBytes bounds an answer with embeddings: 2,048 vectors of 1,536 numbers are some 40 MB.
const MaxEmbeddingBytes = 64 << 20

// EncodingFormat is the form of the embeddings that a validated request body asks for.
func EncodingFormat(body []byte) string {
	if gjson.GetBytes(body, "encoding_format").Str == EncodingBase64 {
		return EncodingBase64
	}
	return EncodingFloat
}

// Embeddings returns the answer to an embedding request, which is valid JSON, with its vectors in the wanted form. That of
// a server that knows only one form is converted; what already has the form, and every other byte, stays as it is. It
// also returns how many vectors there are.
func Embeddings(answer []byte, format string) (converted []byte, count int, err error) {
	data := gjson.GetBytes(answer, "data")
	if !data.IsArray() {
		return nil, 0, fmt.Errorf("embeddings: the answer has no list of data")
	}
	at := 0 // what of the answer has been copied
	data.ForEach(func(_, element gjson.Result) bool {
		vector := element.Get("embedding")
		if !vector.IsArray() && vector.Type != gjson.String {
			err = fmt.Errorf("embeddings: element %d has no embedding", count)
			return false
		}
		count++
		if vector.IsArray() == (format == EncodingFloat) {
			return true
		}
		if converted == nil {
			converted = make([]byte, 0, len(answer))
		}
		converted = append(converted, answer[at:vector.Index]...)
		if converted, err = appendVector(converted, vector); err != nil {
			err = fmt.Errorf("embeddings: element %d: %w", count-1, err)
			return false
		}
		at = vector.Index + len(vector.Raw)
		return true
	})
	switch {
	case err != nil:
		return nil, 0, err
	case at == 0:
		return answer, count, nil
	}
	return append(converted, answer[at:]...), count, nil
}

// appendVector appends the vector in the form that it does not have.
func appendVector(dst []byte, vector gjson.Result) ([]byte, error) {
	if vector.Type == gjson.String {
		raw, err := base64.StdEncoding.DecodeString(vector.Str)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the base64 is damaged: %w", err)
		case len(raw)%4 != 0:
			return nil, fmt.Errorf("%d bytes are no float32 values", len(raw))
		}
		return AppendFloats(dst, decodeFloats(raw)), nil
	}
	var values []float32
	bad := false
	vector.ForEach(func(_, value gjson.Result) bool {
		bad = bad || value.Type != gjson.Number
		values = append(values, float32(value.Num))
		return true
	})
	if bad {
		return nil, fmt.Errorf("the vector holds something that is no number")
	}
	return AppendBase64(dst, values), nil
}

func decodeFloats(raw []byte) []float32 {
	values := make([]float32, len(raw)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values
}

// AppendFloats appends a vector as a JSON array, each value as short as reads back the same. JSON has no infinity and no
// NaN: they become null, as JavaScript writes them.
func AppendFloats(dst []byte, values []float32) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if f := float64(v); math.IsInf(f, 0) || math.IsNaN(f) {
			dst = append(dst, "null"...)
			continue
		}
		dst = strconv.AppendFloat(dst, float64(v), 'g', -1, 32)
	}
	return append(dst, ']')
}

// AppendBase64 appends a vector as a JSON string of base64 over little-endian float32.
func AppendBase64(dst []byte, values []float32) []byte {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"')
}
