package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// chunkBytes is the size of every chunk's JSON, whatever it says.
const chunkBytes = 230

// stampKey precedes the time of sending, in nanoseconds since 1970, in each chunk. A proxy passes it on as an unknown
// member, and the load generator, which reads the same clock, subtracts.
const stampKey = `"sent":"`

const stampDigits = 19

// chunk is a server-sent event with room for a stamp.
type chunk struct {
	event []byte
	stamp int // where the stamp starts
}

// newChunk makes the event of a chunk whose first choice has this delta and finish reason, both JSON.
func newChunk(model, delta, finish string) (*chunk, error) {
	data := fmt.Sprintf(`{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764000000,"model":%q,%s%s",`+
		`"choices":[{"index":0,"delta":%s,"finish_reason":%s}],"pad":""}`, model, stampKey, strings.Repeat("0", stampDigits), delta, finish)
	missing := chunkBytes - len(data)
	if missing < 0 {
		return nil, fmt.Errorf("model name %q is too long for a chunk of %d bytes", model, chunkBytes)
	}
	data = data[:len(data)-2] + strings.Repeat("x", missing) + `"}`
	event := []byte("data: " + data + "\n\n")
	return &chunk{event: event, stamp: bytes.Index(event, []byte(stampKey)) + len(stampKey)}, nil
}

// appendTo appends the event, stamped with now.
func (c *chunk) appendTo(b []byte, now time.Time) []byte {
	b = append(b, c.event[:c.stamp]...)
	b = strconv.AppendInt(b, now.UnixNano(), 10)
	return append(b, c.event[c.stamp+stampDigits:]...)
}

// sentAt reads the stamp of a chunk's JSON.
func sentAt(data []byte) (time.Time, bool) {
	start := bytes.Index(data, []byte(stampKey)) + len(stampKey)
	if start < len(stampKey) || len(data) < start+stampDigits {
		return time.Time{}, false
	}
	var nanos int64
	for _, digit := range data[start : start+stampDigits] {
		if digit < '0' || digit > '9' {
			return time.Time{}, false
		}
		nanos = nanos*10 + int64(digit-'0')
	}
	return time.Unix(0, nanos), true
}
