package sink

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-llm/weir/schemas"
)

// maxRecordBytes bounds what a stored payload may unpack to. Stored records are our own, so this only contains damage.
const maxRecordBytes = 1 << 30

// Codec writes a record in the two parts that every engine keeps apart, so that listing never reads payloads and erasing
// never touches metadata. It is safe for concurrent use.
type Codec struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// NewCodec makes a codec. It needs no closing.
func NewCodec() (*Codec, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(256<<10), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("open compressor: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxRecordBytes))
	if err != nil {
		return nil, fmt.Errorf("open decompressor: %w", err)
	}
	return &Codec{encoder: encoder, decoder: decoder}, nil
}

// Encode gives the metadata as JSON and, unless r has no payload, the whole record as compressed JSON.
func (c *Codec) Encode(r *schemas.Result) (metadata, payload []byte) {
	metadata = WithoutPayload(r).Encode()
	if HasPayload(r) {
		payload = c.encoder.EncodeAll(r.Encode(), nil)
	}
	return metadata, payload
}

// Decode reads what Encode wrote; without a payload it gives the metadata.
func (c *Codec) Decode(metadata, payload []byte) (*schemas.Result, error) {
	if payload == nil {
		return schemas.DecodeResult(metadata)
	}
	record, err := c.decoder.DecodeAll(payload, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack stored record: %w", err)
	}
	return schemas.DecodeResult(record)
}
