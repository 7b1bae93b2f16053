package natsd

import "fmt"

// minFreeBytes is what must be free on the store's disk before new requests are accepted. The server freezes a stream
// whose write fails, so accepting stops while what was accepted can still be finished.
const minFreeBytes = 64 << 20

// Room reports why the disk of the store should take no new requests.
func (s *Server) Room() error {
	free, err := freeBytes(s.dir)
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w", s.dir, err)
	}
	return enoughRoom(s.dir, free)
}

func enoughRoom(dir string, free int64) error {
	if free < minFreeBytes {
		return fmt.Errorf("the disk of %s has %d MiB left, and %d MiB are kept for what was accepted: free some space", dir, free>>20, minFreeBytes>>20)
	}
	return nil
}
