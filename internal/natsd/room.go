package natsd

import (
	"fmt"
	"net/http"

	"github.com/nats-io/nats-server/v2/server"
)

// minFreeBytes is what must be free on the store's disk before new requests are accepted. The server freezes a stream
// whose write fails, so accepting stops while what was accepted can still be finished.
const minFreeBytes = 64 << 20

// Room reports why the store should take no new requests: its disk is nearly full, or a stream has stopped writing, which
// it does for good when a write has failed.
func (s *Server) Room() error {
	free, err := freeBytes(s.dir)
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w", s.dir, err)
	}
	if err := enoughRoom(s.dir, free); err != nil {
		return err
	}
	if health := s.nats.Healthz(&server.HealthzOptions{}); health.StatusCode != http.StatusOK {
		return fmt.Errorf("the embedded nats-server is not healthy: %s; if a write failed, see that the disk works and has space, then restart", health.Error)
	}
	return nil
}

func enoughRoom(dir string, free int64) error {
	if free < minFreeBytes {
		return fmt.Errorf("the disk of %s has %d MiB left, and %d MiB are kept for what was accepted: free some space", dir, free>>20, minFreeBytes>>20)
	}
	return nil
}
