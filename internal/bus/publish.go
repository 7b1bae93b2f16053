package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"
)

// JetStream error codes that decide what becomes of a publish (docs/adr/0001).
const (
	codeWrongLastSequence = 10071
	codeInFlight          = 10164 // on replicated streams: an earlier write to the subject is not yet committed
	codeDuplicateInFlight = 10158
	codeMaxPerSubject     = 10077
	codeNoMessage         = 10037
	codeMaxMessages       = 10122
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
func publish(ctx context.Context, conn *nats.Conn, msg *nats.Msg) (ack, error) {
	reply, err := request(ctx, conn, msg)
	if err != nil {
		return ack{}, err
	}
	if e := apiError(reply.Data); e != nil {
		return ack{}, e
	}
	fields := gjson.GetManyBytes(reply.Data, "seq", "duplicate")
	if !fields[0].Exists() {
		return ack{}, fmt.Errorf("unexpected answer to a publish on %s", msg.Subject)
	}
	return ack{Sequence: fields[0].Uint(), Duplicate: fields[1].Bool()}, nil
}

// request sends a message and waits for the answer, at most tryTimeout.
func request(ctx context.Context, conn *nats.Conn, msg *nats.Msg) (*nats.Msg, error) {
	if ctx.Done() == nil {
		return conn.RequestMsg(msg, tryTimeout) // the frame writer's path: no context to make for each frame
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	return conn.RequestMsgWithContext(ctx, msg)
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
