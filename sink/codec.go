package sink

import (
	"bytes"
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

// plainBytes is the largest payload that is kept as it is: compressing less saves little and costs as much as storing it.
const plainBytes = 1 << 10

// Encode gives the metadata and, unless r has none, the payload, both JSON; a payload above 1 KiB is compressed.
func (c *Codec) Encode(r *schemas.Result) (metadata, payload []byte) {
	metadata = WithoutPayload(r).Encode()
	if !HasPayload(r) {
		return metadata, nil
	}
	payload = r.EncodePayload()
	if len(payload) > plainBytes {
		payload = c.encoder.EncodeAll(payload, make([]byte, 0, len(payload)))
	}
	return metadata, payload
}

// Decode reads what Encode wrote; without a payload it gives the metadata.
func (c *Codec) Decode(metadata, payload []byte) (*schemas.Result, error) {
	r, err := schemas.DecodeResult(metadata)
	if err != nil || payload == nil {
		return r, err
	}
	if !bytes.HasPrefix(payload, []byte("{")) {
		if payload, err = c.decoder.DecodeAll(payload, nil); err != nil {
			return nil, fmt.Errorf("unpack stored payload: %w", err)
		}
	}
	return r, r.DecodePayload(payload)
}
