package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// call is one request and what its reader saw. A reader that is cut off comes back and goes on from its last event, as
// often as it takes.
type call struct {
	id     string
	body   []byte
	same   bool   // the model gives the same answer again
	final  bool   // nothing goes on with what it said: a cut answer is spliced, or ends in an error when it is never the same
	want   string // the whole answer, when it is always the same
	stream bool
	cache  string // what it wants of the cache; empty: nothing

	seen    atomic.Int64 // events
	text    strings.Builder
	finish  string
	code    schemas.Code // of the error that ended it
	cursor  string       // of the last event
	resumes int
	limited bool // it was told of a limit of its tenant
}

// question has more words than any answer: the echo says them over and over, and what comes back to its first words just
// where it was cut cannot be told from an answer that begins again.
const question = "how does a weir hold a river back when it rains for days upstream, the ground is full, every brook in the valley runs " +
	"high, and nobody has touched the gate since spring; what becomes of the water behind it, of the fish that want to pass, of" +
	" the mill that needs a steady head, and of the meadows below that farmers hope to keep dry until the hay is in?"

// finalModel is that of the calls that are final.
const finalModel = "final"

func newCall(id, model string, same, stream bool, tokens, intervalMS int) *call {
	body := map[string]any{
		"model": model, "stream": stream, "messages": []any{map[string]string{"role": "user", "content": question}},
		"x_echo": map[string]any{"tokens": tokens, "interval_ms": intervalMS, "vary": !same},
	}
	if same {
		body["temperature"] = 0
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return &call{id: id, body: data, same: same, final: model == finalModel, stream: stream}
}

// streams is the client of all callers.
var streams = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

var errAgain = errors.New("cut off")

// run goes on until the request has ended for its reader.
func (c *call) run(ctx context.Context, address string) error {
	for {
		err := c.once(ctx, address)
		if err == nil || !errors.Is(err, errAgain) {
			return err
		}
		c.resumes++
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s never ended for its reader after %d events and %d tries: %w: %w", c.id, c.seen.Load(), c.resumes, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// once posts the request, which attaches to the one that was accepted, or resumes behind the last event seen.
func (c *call) once(ctx context.Context, address string) error {
	method, url, body := http.MethodPost, "http://"+address+"/v1/chat/completions", io.Reader(bytes.NewReader(c.body))
	if c.cursor != "" {
		method, url, body = http.MethodGet, "http://"+address+"/v1/streams/"+c.id, nil
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set(schemas.HeaderRequestID, c.id)
	if c.cursor != "" {
		request.Header.Set("Last-Event-ID", c.cursor)
	} else if c.cache != "" {
		request.Header.Set(schemas.HeaderCache, c.cache)
	}
	response, err := streams.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return c.refused(response)
	}
	c.limited = c.limited || response.Header.Get(schemas.HeaderLimitTokens) != ""
	if !c.stream {
		return c.unary(response.Body)
	}
	return c.events(response.Body)
}

// refused reads an error status: the end of the request, or of a try that was not accepted.
func (c *call) refused(response *http.Response) error {
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	e, err := schemas.DecodeError(data)
	if err != nil {
		return fmt.Errorf("status %d without an error object: %q", response.StatusCode, data)
	}
	switch e.Code {
	case schemas.CodeUnavailable, schemas.CodeOverloaded, schemas.CodeInternal:
		return fmt.Errorf("%w: %w", errAgain, e)
	}
	c.code = e.Code
	return nil
}

func (c *call) unary(body io.Reader) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	return c.note(data)
}

func (c *call) events(body io.Reader) error {
	for event, err := range openai.NewReader(body).Events() {
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errAgain, err)
		case string(event.Data) == "[DONE]":
			return nil
		}
		if e, err := schemas.DecodeError(event.Data); err == nil {
			if e.Code == schemas.CodeShutdown && c.cursor != "" {
				return fmt.Errorf("%w: %w", errAgain, e)
			}
			c.code = e.Code
			return nil
		}
		if err := c.follow(string(event.ID)); err != nil {
			return err
		}
		if err := c.note(event.Data); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the stream stopped", errAgain)
}

// follow checks that the event is the next one.
func (c *call) follow(id string) error {
	cursor, err := schemas.ParseCursor(id)
	if err != nil {
		return err
	}
	if cursor.Request != c.id || int64(cursor.Index) != c.seen.Load() {
		return fmt.Errorf("%s: a reader that had seen %d events was shown %s", c.id, c.seen.Load(), id)
	}
	c.cursor = id
	c.seen.Add(1)
	return nil
}

func (c *call) note(data []byte) error {
	var chunk openai.Chunk
	if err := chunk.Peek(data); err != nil {
		return fmt.Errorf("%s: %w", c.id, err)
	}
	for _, choice := range chunk.Choices {
		c.text.WriteString(choice.Content)
		if choice.Finish != "" {
			c.finish = choice.Finish
		}
	}
	return nil
}
