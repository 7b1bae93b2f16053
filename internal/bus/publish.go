package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"
)

// JetStream error codes that decide what becomes of a publish or a read (docs/adr/0001).
const (
	codeUnavailable       = 10008 // no leader at the moment
	codeResources         = 10023
	codeNoMessage         = 10037
	codeWrongLastSequence = 10071
	codeStoreFailed       = 10077 // a limit of the stream is reached, whichever it is; nothing was stored
	codeDuplicateInFlight = 10158
	codeInFlight          = 10164 // on replicated streams: an earlier write to the subject is not yet committed
	codeTooFast           = 10167
)

const (
	tryTimeout     = 2500 * time.Millisecond
	resolveTimeout = 30 * time.Second
)

// ack is the answer of JetStream to a publish.
type ack struct {
	Sequence  uint64
	Duplicate bool
}

// jsError is JetStream's own error.
type jsError struct {
	Code    int    `json:"code"`
	ErrCode int    `json:"err_code"`
	Text    string `json:"description"`
}

func (e *jsError) Error() string { return fmt.Sprintf("%s (%d)", e.Text, e.ErrCode) }

// answered reports whether err is JetStream's answer with a code.
func answered(err error, code int) bool {
	e, ok := errors.AsType[*jsError](err)
	return ok && e.ErrCode == code
}

// transient reports whether what was answered so may succeed when it is repeated.
func transient(e *jsError) bool {
	switch e.ErrCode {
	case codeInFlight, codeDuplicateInFlight, codeUnavailable, codeResources, codeTooFast:
		return true
	}
	return false
}

// hopeless reports whether a message was never sent and never will be.
func hopeless(err error) bool {
	return errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject)
}

// apiError reads the error member of an API answer.
func apiError(data []byte) *jsError {
	member := gjson.GetBytes(data, "error")
	if !member.Exists() {
		return nil
	}
	e := &jsError{}
	if err := json.Unmarshal([]byte(member.Raw), e); err != nil {
		return &jsError{Code: 500, Text: "unreadable answer from JetStream"}
	}
	return e
}

// publish makes one try. A [jsError] is an answer; any other error leaves the outcome unknown.
func publish(ctx context.Context, via *requester, msg *nats.Msg) (ack, error) {
	reply, err := via.request(ctx, msg)
	if err != nil {
		return ack{}, err
	}
	return parseAck(msg.Subject, reply.Data)
}

var (
	ackError     = []byte(`"error":`)
	ackSequence  = []byte(`"seq":`)
	ackDuplicate = []byte(`"duplicate":`) // there only when it is true
)

// parseAck reads {"stream":"LLM_REPLIES","seq":7,"duplicate":true} or an error without decoding the JSON, since there is
// one for every frame: the names of streams are our own, so that no other text stands in an answer.
func parseAck(subject string, data []byte) (ack, error) {
	if bytes.Contains(data, ackError) {
		if e := apiError(data); e != nil {
			return ack{}, e
		}
	}
	_, rest, found := bytes.Cut(data, ackSequence)
	if !found {
		return ack{}, fmt.Errorf("unexpected answer to a publish on %s", subject)
	}
	var sequence uint64
	for _, c := range bytes.TrimLeft(rest, " ") {
		if c < '0' || c > '9' {
			break
		}
		sequence = sequence*10 + uint64(c-'0')
	}
	return ack{Sequence: sequence, Duplicate: bytes.Contains(rest, ackDuplicate)}, nil
}

// publishStored publishes until JetStream has answered, for messages that carry an id, are fenced, or may be stored
// twice. An answer for which retry returns false is returned at once.
func (b *Bus) publishStored(ctx context.Context, msg *nats.Msg, retry func(*jsError) bool) (ack, error) {
	deadline := time.Now().Add(resolveTimeout)
	for {
		acked, err := publish(ctx, b.control, msg)
		if err == nil {
			return acked, nil
		}
		answer, _ := errors.AsType[*jsError](err)
		if answer != nil && !retry(answer) {
			return ack{}, answer
		}
		if time.Now().After(deadline) || hopeless(err) {
			return ack{}, fmt.Errorf("%w: %w", ErrUnresolved, err)
		}
		if waitErr := sleep(ctx, retryWait(answer)); waitErr != nil {
			return ack{}, fmt.Errorf("%w: %w", waitErr, err)
		}
	}
}

// retryWait is how long to wait before a try after an answer, or after none.
func retryWait(answer *jsError) time.Duration {
	if answer == nil {
		return 250 * time.Millisecond
	}
	switch answer.ErrCode {
	case codeInFlight, codeDuplicateInFlight:
		return 30 * time.Millisecond
	case codeWrongLastSequence:
		return 50 * time.Millisecond
	}
	return 250 * time.Millisecond
}

// sleep waits unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
