//go:build !unix

package sqlite

import (
	"fmt"
	"os"
)

// lockFile opens the file without a lock, which this system offers only by other means: run one sink on a store.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}
