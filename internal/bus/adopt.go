package bus

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// Adopt takes a partition of LLM_REQUESTS over from a router that is gone. It ends the pin of the partition, unless that is
// the caller's own, and makes available again at once what was delivered and not settled, when that is more than the
// requests that the caller holds of the partition. It returns how many were delivered and not settled then. Calling it for
// nothing is harmless: what the caller holds may be delivered to it once more.
func (b *Bus) Adopt(ctx context.Context, partition int, pin string, held int) (unsettled int, err error) {
	stream, consumer := schemas.StreamRequests, schemas.RouterConsumer(partition)
	info, err := b.consumerInfo(ctx, stream, consumer)
	if err != nil {
		return 0, err
	}
	if holder := pinned(info, schemas.RouterGroup); holder != "" && holder != pin {
		if err := b.endPin(ctx, stream, consumer, schemas.RouterGroup); err != nil {
			return 0, err
		}
	}
	if info.NumAckPending <= held {
		return 0, nil
	}
	return info.NumAckPending, b.callConsumer(ctx, "RESET", stream, consumer, nil)
}

// unpin ends the pin of a consumer's group if it is the one given. Whoever unpins ends any pin, so the holder is looked up.
func (b *Bus) unpin(ctx context.Context, stream, consumer, group, pin string) error {
	info, err := b.consumerInfo(ctx, stream, consumer)
	if err != nil || pinned(info, group) != pin {
		return err
	}
	return b.endPin(ctx, stream, consumer, group)
}

func (b *Bus) consumerInfo(ctx context.Context, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	live, err := b.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return nil, fmt.Errorf("look up consumer %s of %s: %w", consumer, stream, err)
	}
	return live.CachedInfo(), nil
}

// pinned is the pin of a group, or empty.
func pinned(info *jetstream.ConsumerInfo, group string) string {
	for _, g := range info.PriorityGroups {
		if g.Group == group {
			return g.PinnedClientID
		}
	}
	return ""
}

func (b *Bus) endPin(ctx context.Context, stream, consumer, group string) error {
	body, err := json.Marshal(map[string]string{"group": group})
	if err != nil {
		return err
	}
	return b.callConsumer(ctx, "UNPIN", stream, consumer, body)
}
