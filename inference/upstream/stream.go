package upstream

import (
	"errors"
	"io"
	"iter"
	"time"

	"github.com/weir-llm/weir/internal/openai"
)

// tailWait is how long a whole answer waits for its usage and end mark, and drainWait how long a finished one waits for the
// connection to become free for the next call.
const (
	maxMalformed = 100 // events that a call may leave out

	tailWait  = 2 * time.Second
	drainWait = 50 * time.Millisecond
)

// Protocol says what the events of a stream mean. It is owned by one call.
type Protocol interface {
	// Event passes on an event, or returns the error that it is or tells of. An event that is no sign of life of the model
	// does not count. After the end mark nothing is read.
	Event(e *openai.Event) (counts, end bool, err error)

	// Whole reports whether the answer is whole, if only its end mark is missing.
	Whole() bool

	// Ended judges what has come when no more does: nil means that the answer is whole.
	Ended() error

	// NoStream is the error of a document that came in place of a stream.
	NoStream(data []byte) error
}

// Stream passes on the server-sent events of a reply, until the answer is whole or the error that it is not.
func (c *Call) Stream(body io.ReadCloser, protocol Protocol) error {
	defer body.Close()
	reader := openai.NewReader(body)
	defer reader.Release()
	first, err := reader.Sniff()
	switch {
	case err != nil:
		return c.unsaid(err)
	case first == '{' || first == '[' || first == '<':
		return c.document(reader, protocol)
	}
	return c.follow(body, reader.Events(), protocol)
}

// Lines passes on a reply that has an event in each line, as Stream does for server-sent ones.
func (c *Call) Lines(body io.ReadCloser, protocol Protocol) error {
	defer body.Close()
	reader := openai.NewReader(body)
	defer reader.Release()
	first, err := reader.Sniff()
	switch {
	case err != nil:
		return c.unsaid(err)
	case first == '<':
		return c.document(reader, protocol)
	}
	return c.follow(body, reader.Lines(), protocol)
}

// unsaid is the error of a reply that ended in err before it said anything.
func (c *Call) unsaid(err error) error {
	if errors.Is(err, io.EOF) {
		return EmptyStream()
	}
	return c.broken(err)
}

// document reads what came in place of a stream.
func (c *Call) document(reader *openai.Reader, protocol Protocol) error {
	data, err := reader.ReadAll(maxErrorBytes)
	if err != nil {
		return c.broken(err)
	}
	return protocol.NoStream(data)
}

// follow passes on events.
func (c *Call) follow(body io.Reader, events iter.Seq2[openai.Event, error], protocol Protocol) error {
	for event, err := range events {
		if err != nil {
			return c.ended(err, protocol)
		}
		counts, end, err := protocol.Event(&event)
		if err != nil && c.leaveOut(err) {
			counts, end, err = false, false, nil
		}
		if err != nil || c.stopped {
			return err
		}
		if end {
			c.letGo()
			c.drain(body)
			break
		}
		if event.More { // what has arrived need not be waited for
			continue
		}
		if !counts {
			if c.letGo(); c.stopped {
				return nil
			}
		}
		if counts || !c.listening {
			c.listen(c.patience(protocol), c.bounds.idle)
		}
	}
	return protocol.Ended()
}

// leaveOut reports whether an event that failed is left out, as far as the operator wants it so.
func (c *Call) leaveOut(err error) bool {
	if !c.client.config.SkipMalformed || c.malformed >= maxMalformed || !errors.Is(err, errMalformed) {
		return false
	}
	c.malformed++
	c.untold++
	return true
}

// ended judges a stream that broke. An answer that is whole stays so whatever became of the connection afterwards.
func (c *Call) ended(err error, protocol Protocol) error {
	if protocol.Ended() == nil {
		return nil
	}
	if errors.Is(err, openai.ErrEventTooLarge) {
		return TooLarge(openai.MaxEventBytes)
	}
	return c.broken(err)
}

// patience is how long the next event may take.
func (c *Call) patience(protocol Protocol) time.Duration {
	if protocol.Whole() {
		return min(c.bounds.Idle, tailWait)
	}
	return c.bounds.Idle
}

// drain reads to the end of the reply, which is due, so that its connection can serve the next call.
func (c *Call) drain(body io.Reader) {
	c.listen(drainWait, c.bounds.idle)
	_, _, _ = readAtMost(body, -1, maxErrorBytes) // whatever follows the end mark says nothing
	c.Hush()
}
