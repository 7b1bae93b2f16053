package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// cancelTimeout bounds a cancel, which waits a second for the worker and then writes the end itself.
const cancelTimeout = 30 * time.Second

// keeps reports whether a request goes on when its caller leaves: because it was asked for, or because the caller has a
// name by which to come back to it.
func keeps(r *schemas.Request, named bool) bool {
	if v := r.Header[schemas.HeaderOnDisconnect]; len(v) > 0 {
		return schemas.OnDisconnect(v[0]) == schemas.DisconnectContinue
	}
	return named
}

// attend runs read as a reader of the exchange's request. When it returns before the request's end, the request is cancelled
// after a while unless somebody reads on, or the reader may not end it.
func (s *Ingest) attend(x *exchange, keep, shared bool, read func() (finished bool, err error)) error {
	if x.onlooker {
		s.readers.look(x.id)
	} else {
		s.readers.attach(x.id, keep, shared)
	}
	finished := false
	defer func() {
		if last, patience := s.readers.detach(x.id, finished); last && !s.draining.Load() {
			x.log(slog.LevelInfo, "the last reader left before the end", slog.Duration("patience", patience))
		}
	}()
	var err error
	finished, err = read()
	return err
}

// abandon cancels a request that nobody reads.
func (s *Ingest) abandon(ctx context.Context, id identity) {
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	s.meters.abandoned.Inc()
	err := s.cfg.Bus.CancelRequest(ctx, id, schemas.Cancelled(schemas.CancelledByDisconnect))
	if err != nil && !errors.Is(context.Cause(ctx), errDrained) && ctx.Err() == nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "cancel of an abandoned request did not work; it runs until its end",
			slog.String(telemetry.KeyRequest, id.Request), slog.String(telemetry.KeyTenant, id.Tenant), slog.Any(telemetry.KeyError, err))
	}
}

// announce tells other processes that the request is read here, so that none of them cancels it.
func (s *Ingest) announce(ctx context.Context, id identity) {
	if err := s.cfg.Bus.Attach(id); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "could not tell that a request is read here",
			slog.String(telemetry.KeyRequest, id.Request), slog.Any(telemetry.KeyError, err))
	}
}
