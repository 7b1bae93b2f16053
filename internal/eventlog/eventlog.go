// Package eventlog packs the events of a finished request into the compressed log that its result keeps, with the frame
// structure and the times they were committed in, and unpacks it for replay.
package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-llm/weir/schemas"
)

// MaxBytes is the most that the events of one request may hold uncompressed.
const MaxBytes = 64 << 20

// Encodings of a log.
const (
	encodingZstd = "zstd"
	encodingNone = "none" // the events were larger than MaxBytes: only the marks are kept
)

// ErrNotKept says that the events were too large to be kept with the result.
var ErrNotKept = errors.New("the events were too large to be kept")

// Pack makes the log of the frames that hold events of a stream, whose payloads must be resolved, relative to the time of
// acceptance. It is nil when there are no events, as for a unary answer, whose response the result holds whole. It is
// safe for concurrent use.
func Pack(accepted time.Time, frames []*schemas.Frame) *schemas.EventLog {
	log := &schemas.EventLog{Encoding: encodingZstd}
	size := 0
	for _, f := range frames {
		if !f.Streamed() {
			continue
		}
		log.Count += f.Count
		log.Frames = append(log.Frames, schemas.FrameMark{Count: f.Count, AfterMS: f.Time.Sub(accepted).Milliseconds(), Attempt: f.Attempt})
		size += len(f.Data) + 1
	}
	if len(log.Frames) == 0 {
		return nil
	}
	if size > MaxBytes {
		log.Encoding = encodingNone
		return log
	}
	log.Data = encoder().EncodeAll(lines(frames, size), nil)
	return log
}

// lines puts every event on a line of its own.
func lines(frames []*schemas.Frame, size int) []byte {
	data := make([]byte, 0, size)
	for _, f := range frames {
		if !f.Streamed() {
			continue
		}
		if bytes.Count(f.Data, lineFeed) == f.Count-1 { // line by line already
			data = append(append(data, f.Data...), '\n')
			continue
		}
		for _, event := range f.Events() {
			// A line feed in JSON can only be white space between its tokens.
			data = append(append(data, bytes.ReplaceAll(event, lineFeed, space)...), '\n')
		}
	}
	return data
}

// Kept reports whether a log holds its events, which it does unless they were too large. A nil log has none to hold.
func Kept(log *schemas.EventLog) bool { return log == nil || log.Encoding != encodingNone }

// Frames yields the delta frames that log was packed from: events, indexes, attempts and times, without writer and
// sequence, which a log does not keep. The log may come from anywhere: an error, which ends the sequence, says that it
// is damaged, and at most [MaxBytes] are unpacked. A nil log yields nothing. It is safe for concurrent use.
func Frames(log *schemas.EventLog, accepted time.Time) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		if log == nil {
			return
		}
		rest, err := unpack(log)
		if err != nil {
			yield(nil, err)
			return
		}
		var index uint64
		for _, mark := range log.Frames {
			f := &schemas.Frame{Kind: schemas.KindDelta, Attempt: mark.Attempt, Index: index, Count: mark.Count,
				Time: accepted.Add(time.Duration(mark.AfterMS) * time.Millisecond)}
			f.Data, rest = cutLines(rest, mark.Count)
			index = f.Next()
			if !yield(f, nil) {
				return
			}
		}
	}
}

// unpack gives the log's lines after it has checked that they are as many as the marks say.
func unpack(log *schemas.EventLog) ([]byte, error) {
	left := log.Count
	for _, mark := range log.Frames {
		if mark.Count < 0 || mark.Count > left {
			return nil, fmt.Errorf("unpack event log: its frames do not hold the %d events it counts", log.Count)
		}
		left -= mark.Count
	}
	if left != 0 {
		return nil, fmt.Errorf("unpack event log: its frames hold %d events fewer than the %d it counts", left, log.Count)
	}
	switch log.Encoding {
	case encodingZstd:
	case encodingNone:
		return nil, ErrNotKept
	default:
		return nil, fmt.Errorf("unpack event log: unknown encoding %q", log.Encoding)
	}
	data, err := decoder().DecodeAll(log.Data, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack event log: %w", err)
	}
	if got := bytes.Count(data, lineFeed); got != log.Count {
		return nil, fmt.Errorf("unpack event log: it holds %d events and counts %d", got, log.Count)
	}
	return data, nil
}

// cutLines splits n lines off data, without the last one's line feed.
func cutLines(data []byte, n int) (lines, rest []byte) {
	end := 0
	for range n {
		end += bytes.IndexByte(data[end:], '\n') + 1
	}
	if end == 0 {
		return nil, data
	}
	return data[: end-1 : end-1], data[end:]
}

var (
	lineFeed = []byte{'\n'}
	space    = []byte{' '}
)

// One encoder and one decoder serve the process: EncodeAll and DecodeAll keep nothing between calls, and each instance
// has tables of its own. One lane and a small window, because events repeat at once or not at all.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(128<<10), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			panic(err) // the options are constant
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxBytes))
		if err != nil {
			panic(err) // the options are constant
		}
		return d
	})
)
