package echo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Numbers of dimensions of a vector.
const (
	defaultDimensions = 256
	maxDimensions     = 4096
)

// Embed turns each text into a vector of length 1: every word of it counts in one dimension, so that texts with words in
// common are near each other.
func (b *Backend) Embed(ctx context.Context, r *inference.GenerateRequest) ([]byte, error) {
	body := gjson.ParseBytes(r.Body)
	dials, err := b.config.Dials.override(body.Get("x_echo").Raw)
	if err != nil {
		return nil, err
	}
	dimensions := defaultDimensions
	if given := body.Get("dimensions"); given.Type == gjson.Number {
		dimensions = int(given.Int())
	}
	if dimensions < 1 || dimensions > maxDimensions {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "dimensions is out of range: the echo model has 1 to %d", maxDimensions).WithParam("dimensions")
	}
	if err := dials.refusal(max(r.Try, 1)); err != nil {
		return nil, err
	}
	c := call{ctx: ctx}
	if err := c.pause(dials.interval()); err != nil {
		return nil, err
	}
	return vectors(texts(body.Get("input")), dimensions, openai.EncodingFormat(r.Body), body.Get("model").Str), nil
}

func vectors(texts []string, dimensions int, format, model string) []byte {
	out, tokens := []byte(`{"object":"list","data":[`), 0
	for i, text := range texts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"object":"embedding","index":`...)
		out = strconv.AppendInt(out, int64(i), 10)
		out = append(out, `,"embedding":`...)
		if v := vector(text, dimensions); format == openai.EncodingBase64 {
			out = openai.AppendBase64(out, v)
		} else {
			out = openai.AppendFloats(out, v)
		}
		out = append(out, '}')
		tokens += len(tokenise(text))
	}
	out = appendString(append(out, `],"model":`...), model)
	out = strconv.AppendInt(append(out, `,"usage":{"prompt_tokens":`...), int64(tokens), 10)
	out = strconv.AppendInt(append(out, `,"total_tokens":`...), int64(tokens), 10)
	return append(out, "}}"...)
}

// vector adds up the words of a text, each in a dimension and with a sign that its hash tells.
func vector(text string, dimensions int) []float32 {
	sums := make([]float64, dimensions)
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		hash := sha256.Sum256([]byte(word))
		sign := float64(1)
		if hash[8]&1 == 1 {
			sign = -1
		}
		sums[binary.LittleEndian.Uint64(hash[:8])%uint64(dimensions)] += sign
	}
	square := float64(0)
	for _, v := range sums {
		square += v * v
	}
	if square == 0 { // no words, or words that cancel each other out
		sums[0], square = 1, 1
	}
	out := make([]float32, dimensions)
	for i, v := range sums {
		out[i] = float32(v / math.Sqrt(square))
	}
	return out
}
