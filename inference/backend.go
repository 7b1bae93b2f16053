package inference

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Backend calls one model server, or stands in for one. All methods are safe for concurrent use, and none outlives its
// call: when it has returned, or its loop has ended, nothing of it is left running. A Backend does not retry and does
// not bound how many calls it runs at once; its caller does both.
type Backend interface {
	// Name is the operator's name for the backend, as it stands in a try.
	Name() string

	// Generate calls the model when the loop over it begins, and once per loop. A streamed request yields each event as it
	// arrives, a unary request exactly one, the whole response.
	//
	// An error is the last thing yielded, and schemas.AsError finds a coded error in it. A loop that ends without an error has
	// yielded a whole answer; an answer that was cut is always an error.
	//
	// The upstream call is closed, so that the model stops, within a second after ctx ends (also while the loop body
	// blocks), and before the loop returns when its body breaks out. The loop body may block for as long as it likes
	// otherwise: that time does not count as the model's silence.
	Generate(ctx context.Context, r *GenerateRequest) iter.Seq2[Event, error]

	// Embed runs an embedding request and returns the whole response, its vectors in the form that the body asks for
	// (encoding_format). It ends with ctx as Generate does. Stream and Resume are not set.
	Embed(ctx context.Context, r *GenerateRequest) ([]byte, error)

	// Models lists the models that the server offers.
	Models(ctx context.Context) ([]string, error)

	// Health reports why the server cannot be used, cheaply and without running a model.
	Health(ctx context.Context) error

	// Capabilities never change during the life of the backend.
	Capabilities() Capabilities
}

// GenerateRequest is one call of a model. A Backend only reads it.
type GenerateRequest struct {
	Identity schemas.Identity
	Op       schemas.Op

	// Model is the server's name for the model when it differs from the body's, which is the public name; events then carry
	// the public name again. Empty is the backend's own configured name, or else the body's.
	Model string

	Body    []byte // validated; as the caller sent it but for what a tenant must not control
	Stream  bool   // as the body says
	Choices int    // answers that the body asks for; 0 = not counted yet

	Attempt  int       // number of start frames of the chain, from 1
	Try      int       // which call this is within the attempt, from 1; set by [Retry]
	Deadline time.Time // the request's; zero = none but that of the context
	Resume   *Resume   // go on from here, for a backend whose Capabilities allow it; nil = from the start
	Tell     bool      // tell with every event what another call could go on from, if the server does

	// Header is the caller's. A backend passes on the trace context, and to a server that speaks the dialect of the op the
	// headers of that dialect.
	Header schemas.Header
}

// Resume is an answer so far, of which the backend yields only the rest. What it says of usage is that of its own call.
type Resume struct {
	Text   string  // without white space at its end
	Tokens int     // of the answer so far, as far as they are known: limits are lowered by them
	IDs    []int64 // of the prompt and the answer so far, instead of Text; of the backend's own vocabulary
	Origin openai.Origin
}

// Event is one step of an answer.
type Event struct {
	// Data is one line of JSON in the form that callers see, the server's own bytes wherever they can be kept. It is valid
	// only until the loop body returns and must not be changed: copying into the frame that is being gathered is cheaper
	// than a slice of its own for every token. It is empty for an event that only tells its receiver something, such as
	// usage that the caller did not ask for; such an event is not passed on.
	Data []byte

	// Chunk is what Data says, in terms of chat whatever the dialect, never nil, so that nobody needs to parse it again. It
	// too is valid only until the loop body returns; its strings may be kept.
	Chunk *openai.Chunk

	// Running is what another call could go on from, when the request asks to be told; nil otherwise. It is valid only until
	// the loop body returns.
	Running *openai.Running

	// LeftOut is how many events before this one could not be read and were left out, as the operator wants it.
	LeftOut int

	// More says that the next event is already here, so that both may leave in one frame. It is never set while the next
	// event is still to come.
	More bool
}

// Capabilities tells what a backend can be asked, and what may be done after its answer was cut.
type Capabilities struct {
	// Ops are what the backend takes as they are and answers in the op's own dialect; nil is chat alone. What it does not
	// speak is translated for it where that is possible.
	Ops []schemas.Op

	// Deterministic is the operator's word that the same request at temperature 0 gives the same text, so that a cut answer
	// may be spliced with a second run.
	Deterministic bool
	Continue      Continuation

	// Vocabulary names what token ids mean: backends that name the same can go on from each other's. Empty is the public
	// name of the model.
	Vocabulary string
}

// Continuation is what a backend can go on from.
type Continuation int

// The continuations, from none to exact.
const (
	ContinueNone   Continuation = iota
	ContinueText                // the text so far; a word that was cut may be spelt differently
	ContinueTokens              // the token ids so far, exactly, and the text where there are none
)

// Timeouts bound one call of a model. A zero field is its default; no bound can be switched off.
type Timeouts struct {
	Connect    time.Duration // to connect, TLS included; default 3s
	FirstToken time.Duration // from the call to the first event of a stream; default 60s
	Idle       time.Duration // between two events, or between two pieces of a unary body; default 60s
	Total      time.Duration // of the whole call; default 15m
}

// WithDefaults fills in the fields that are zero.
func (t Timeouts) WithDefaults() Timeouts {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&t.Connect, 3*time.Second)
	fill(&t.FirstToken, time.Minute)
	fill(&t.Idle, time.Minute)
	fill(&t.Total, 15*time.Minute)
	return t
}

// Validate reports a bound that is negative.
func (t Timeouts) Validate() error {
	if min(t.Connect, t.FirstToken, t.Idle, t.Total) < 0 {
		return errors.New("timeouts: a timeout is negative: leave it out for the default")
	}
	return nil
}

// ContextError tells why ctx ended: the coded error that somebody cancelled it with, the deadline, or a cancellation.
func ContextError(ctx context.Context) *schemas.Error {
	cause := context.Cause(ctx)
	if e, ok := errors.AsType[*schemas.Error](cause); ok {
		return e
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return schemas.Errorf(schemas.CodeDeadline, "the request's deadline passed before its answer was whole; allow more time").WithCause(cause)
	}
	return schemas.Errorf(schemas.CodeCancelled, "the request was cancelled").WithCause(cause)
}
