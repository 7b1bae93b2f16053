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

// Parts are the two parts of a record. They may be used for one record after another, and then take no new memory.
type Parts struct {
	Metadata []byte
	Payload  []byte // nil if the record has none

	plain, packed []byte // either is the payload
}

// Encode writes r into p: the metadata and the payload, both JSON; a payload above 1 KiB is compressed.
func (c *Codec) Encode(p *Parts, r *schemas.Result) {
	p.Metadata, p.Payload = r.AppendMetadata(p.Metadata[:0]), nil
	if !HasPayload(r) {
		return
	}
	p.plain = r.AppendPayload(p.plain[:0])
	if p.Payload = p.plain; len(p.plain) > plainBytes {
		p.packed = c.encoder.EncodeAll(p.plain, p.packed[:0])
		p.Payload = p.packed
	}
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
