package natsd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// storeFolder says to whoever finds it that the store is of a single server: one that joins a cluster with it
	// deletes every stream in it.
	storeFolder = "nats-standalone"
	markerFile  = "weir-store.json"
	lockFile    = "weir.lock"

	storeFormat = 1
)

// marker says that Weir made the store, and warns the person who reads it.
type marker struct {
	MadeBy string `json:"made_by"`
	Format int    `json:"format"`
	Note   string `json:"note"`
}

const markerNote = "The JetStream store of an embedded, standalone nats-server, written by weir serve. " +
	"Do not start another nats-server on it: a server that joins a cluster deletes it. To move, back up and restore the streams."

// openStore makes the directory when it is missing, locks it, and makes sure that the store in it is Weir's. The store
// is free again when the returned file is closed, or when the process ends in any way.
func openStore(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, directoryPerms); err != nil {
		return nil, fmt.Errorf("make the store directory: %w; choose another with --data-dir", err)
	}
	if err := refuseForeign(dir); err != nil {
		return nil, err
	}
	lock, err = lockStore(dir)
	if err != nil {
		return nil, err
	}
	if err := writeMarker(dir); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func lockStore(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the store: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		if !errors.Is(err, errHeld) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%s is in use by another weir%s: stop that one, or choose another --data-dir", dir, holder(path))
	}
	// Only the error message of a second process reads this, so that a failure to write it is no reason to stop.
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

// holder names the process that wrote the lock file, as far as it can be told.
func holder(path string) string {
	b, _ := os.ReadFile(path)
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

// refuseForeign accepts a directory that is new, or that carries the marker and was never part of a cluster.
func refuseForeign(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, markerFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuseFilled(dir)
	case err != nil:
		return fmt.Errorf("read the marker of the store: %w", err)
	}
	var m marker
	if err := json.Unmarshal(b, &m); err != nil || m.MadeBy != "weir" {
		return fmt.Errorf("%s is not a marker that Weir wrote: the store in %s may be damaged or foreign; choose another --data-dir", markerFile, dir)
	}
	if m.Format > storeFormat {
		return fmt.Errorf("%s was made by a newer Weir (store format %d, this one knows %d): use that version", dir, m.Format, storeFormat)
	}
	if clustered, _ := filepath.Glob(filepath.Join(dir, "jetstream", "*", "_js_", "_meta_")); len(clustered) > 0 {
		return fmt.Errorf("%s has been used by a clustered nats-server: an embedded server cannot use it; choose another --data-dir", dir)
	}
	return nil
}

// refuseFilled refuses a directory that has anything in it but what a start that died half way has left.
func refuseFilled(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the store directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != markerFile+".tmp" {
			return fmt.Errorf("%s holds a store that Weir did not make (no %s, but %s): choose another --data-dir", dir, markerFile, e.Name())
		}
	}
	return nil
}

func writeMarker(dir string) error {
	path := filepath.Join(dir, markerFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	b, err := json.MarshalIndent(marker{MadeBy: "weir", Format: storeFormat, Note: markerNote}, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("mark the store: %w", err)
	}
	return nil
}

// replaceFile writes a file that only its owner reads, so that a reader sees the old or the new content, never a part.
func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
