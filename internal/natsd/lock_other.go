//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package natsd

import (
	"errors"
	"os"
)

var errHeld = errors.New("the lock is held")

// flock refuses: without a lock two processes could write one store.
func flock(*os.File) error {
	return errors.New("the embedded nats-server needs file locks of a Unix: use an external nats-server with --nats nats://…")
}
