package bus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// HandBack makes items of LLM_WORK available again at once in the name of a worker that is gone, as its negative
// acknowledgement would. The server obeys one from anybody and ignores one for an item that is settled, so it must be aimed
// well: an item that a worker runs is given to a second one.
func (b *Bus) HandBack(ctx context.Context, modelToken string, sequences ...uint64) error {
	consumer := schemas.WorkConsumer(modelToken)
	info, err := b.consumerInfo(ctx, schemas.StreamWork, consumer)
	if err != nil {
		return err
	}
	for _, sequence := range sequences {
		// Of a delivery only the stream's sequence counts, but the consumer's must be one that it has given out.
		subject := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.%d.0", schemas.StreamWork, consumer, sequence, info.Delivered.Consumer, time.Now().UnixNano())
		if err := b.control.Publish(subject, outcomeVerbs[Nak]); err != nil {
			return fmt.Errorf("hand back item %d of %s: %w", sequence, consumer, err)
		}
	}
	return nil
}

// WorkIdentity is the request of the item in LLM_WORK with a sequence, or [ErrNotFound] when it is gone.
func (b *Bus) WorkIdentity(ctx context.Context, sequence uint64) (schemas.Identity, error) {
	m, err := b.getMessage(ctx, schemas.StreamWork, map[string]any{"seq": sequence})
	if err != nil {
		return schemas.Identity{}, err
	}
	token, _ := strings.CutPrefix(m.Subject, schemas.WorkSubject(""))
	work, err := schemas.DecodeWork(token, m.Header, m.Data)
	if work == nil {
		return schemas.Identity{}, err
	}
	return work.Identity, work.Validate()
}
