package certs

import (
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// checkEvery is how often the files are looked at, at most: a handshake does it, so that nothing runs while none comes.
const checkEvery = time.Second

// followed is what was read from files, kept up to date.
type followed[T any] struct {
	files []string
	read  func() (T, error)
	log   *slog.Logger

	mu      sync.Mutex
	last    T
	seen    []fs.FileInfo // of the files that last came from
	checked time.Time
	problem string // with the files that replaced them, "" when there are none
}

// follow reads the files, of which those without a name are left out.
func follow[T any](log *slog.Logger, read func() (T, error), files ...string) (*followed[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &followed[T]{files: slices.DeleteFunc(files, func(name string) bool { return name == "" }), read: read, log: log, checked: time.Now()}
	f.seen = f.look() // before they are read, so that a change meanwhile shows
	var err error
	f.last, err = read()
	return f, err
}

// value is what the files hold, or what they held when they were last good.
func (f *followed[T]) value() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.checked) < checkEvery {
		return f.last
	}
	f.checked = now
	there := f.look()
	if slices.EqualFunc(f.seen, there, SameFile) {
		f.problem = ""
		return f.last
	}
	next, err := f.read()
	if err != nil {
		f.complain(err)
		return f.last
	}
	f.last, f.seen, f.problem = next, there, ""
	f.log.Info("certificates were replaced", "files", f.files)
	return f.last
}

// complain says once what is wrong. The files are read again at each look, because a permission leaves no trace in them.
func (f *followed[T]) complain(err error) {
	if f.problem == err.Error() {
		return
	}
	f.problem = err.Error()
	f.log.Error("replaced certificates cannot be used, the last good ones stay in use", "error", err)
}

// look gives a nil for a file that is not there.
func (f *followed[T]) look() []fs.FileInfo {
	infos := make([]fs.FileInfo, len(f.files))
	for i, name := range f.files {
		if info, err := os.Stat(name); err == nil {
			infos[i] = info
		}
	}
	return infos
}

// SameFile reports whether a file is still what it was; a nil is one that is not there.
func SameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
