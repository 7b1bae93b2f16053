package client

import (
	"context"
	"errors"
)

func newTenant(ctx context.Context, cfg Config) (transport, error) {
	return nil, errors.New("no")
}
