//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package natsd

import (
	"errors"
	"os"
	"syscall"
)

var errHeld = errors.New("the lock is held")

// flock takes the lock of a file or returns errHeld. The kernel gives it back when the process ends, however it ends.
func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
