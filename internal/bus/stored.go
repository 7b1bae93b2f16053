package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/weir-llm/weir/schemas"
)

// A stored read holds the lock that writes need, so batches are small and few run at once.
const (
	storedBatch = 32
	storedReads = 4
)

// message is a message as the leader of its stream returns it.
type message struct {
	Subject  string    `json:"subject"`
	Sequence uint64    `json:"seq"`
	RawHead  []byte    `json:"hdrs"`
	Data     []byte    `json:"data"`
	Time     time.Time `json:"time"`
	Header   nats.Header
}

// getLast asks the leader of stream for the last message of subject. A replica may answer a direct get from the past, so
// every decision about a fence comes through here.
func (b *Bus) getLast(ctx context.Context, stream, subject string) (*message, error) {
	return b.getMessage(ctx, stream, map[string]any{"last_by_subj": subject})
}

func (b *Bus) getMessage(ctx context.Context, stream string, query map[string]any) (*message, error) {
	body, err := json.Marshal(query)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	reply, err := b.control.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, fmt.Errorf("read from %s: %w", stream, err)
	}
	var answer struct {
		Message message  `json:"message"`
		Error   *jsError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return nil, fmt.Errorf("read from %s: %w", stream, err)
	}
	// Not every 404: that the stream itself is missing must not look like an empty chain.
	if answer.Error != nil && answer.Error.ErrCode == codeNoMessage {
		return nil, ErrNotFound
	}
	if answer.Error != nil {
		return nil, fmt.Errorf("read from %s: %w", stream, answer.Error)
	}
	if len(answer.Message.RawHead) > 0 {
		if answer.Message.Header, err = nats.DecodeHeadersMsg(answer.Message.RawHead); err != nil {
			return nil, fmt.Errorf("read from %s: %w", stream, err)
		}
	}
	return &answer.Message, nil
}

// lastFrame is the last frame of a chain by the word of the leader.
func (b *Bus) lastFrame(ctx context.Context, id schemas.Identity) (*schemas.Frame, error) {
	m, err := b.getLast(ctx, schemas.StreamReplies, id.Replies())
	if err != nil {
		return nil, err
	}
	return decodeFrame(m.Header, m.Data, m.Sequence, m.Time)
}

// errRemoved says that frames which the leader had named are no longer there.
var errRemoved = errors.New("frames were removed while they were read")

// storedFrames reads the frames of a chain from the stream sequence from on, up to and including sequence last, which the
// leader has named. A replica that lags is asked again. It ends with errRemoved when erasure or retention was faster.
func (b *Bus) storedFrames(ctx context.Context, id schemas.Identity, from, last uint64) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for from <= last {
			frames, err := b.storedBatch(ctx, id, from)
			if err == nil && len(frames) == 0 {
				err = b.awaitReplica(ctx, id, from)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, f := range frames {
				if f.Sequence > last {
					if from <= last {
						yield(nil, errRemoved)
					}
					return
				}
				if !yield(f, nil) {
					return
				}
				from = f.Sequence + 1
			}
		}
	}
}

// awaitReplica gives a replica that has nothing from a sequence on a moment, unless its leader has nothing any more either.
func (b *Bus) awaitReplica(ctx context.Context, id schemas.Identity, from uint64) error {
	if err := sleep(ctx, 20*time.Millisecond); err != nil {
		return err
	}
	if current, err := b.lastFrame(ctx, id); errors.Is(err, ErrNotFound) || err == nil && current.Sequence < from {
		return errRemoved
	}
	return nil
}

// storedBatch reads the next frames of a chain at or after a stream sequence, at most storedBatch of them.
func (b *Bus) storedBatch(ctx context.Context, id schemas.Identity, from uint64) ([]*schemas.Frame, error) {
	select {
	case b.stored <- struct{}{}:
		defer func() { <-b.stored }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	batch, err := jetstreamext.GetBatch(ctx, b.js, schemas.StreamReplies, storedBatch,
		jetstreamext.GetBatchSeq(max(from, 1)), jetstreamext.GetBatchSubject(id.Replies()))
	if err != nil {
		return nil, fmt.Errorf("read the frames of %s: %w", id, err)
	}
	var frames []*schemas.Frame
	for m, err := range batch {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the frames of %s: %w", id, err)
		}
		f, err := decodeFrame(m.Header, m.Data, m.Sequence, m.Time)
		if err != nil {
			return nil, fmt.Errorf("read the frames of %s: %w", id, err)
		}
		frames = append(frames, f)
	}
	return frames, nil
}

// ErrDamaged says that what is stored cannot be read, now or later.
var ErrDamaged = errors.New("damaged")

func decodeFrame(h nats.Header, data []byte, sequence uint64, at time.Time) (*schemas.Frame, error) {
	f, err := schemas.DecodeFrame(h, data)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w: %w", sequence, ErrDamaged, err)
	}
	f.Sequence, f.Time = sequence, at
	return f, nil
}
