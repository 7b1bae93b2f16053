package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/internal/telemetry"
)

// lookEvery is how often the configuration file is looked at. A change is read when two looks in a row have found the same
// file, so that one that is still being written is not taken for a broken one.
const lookEvery = time.Second

// follower puts the configuration file into effect again when it has changed.
type follower struct {
	path string
	load func() (*Config, *findings)
	live *live
	log  *slog.Logger

	read, seen fs.FileInfo // the file that is in effect, or was refused; and the one of the last look
	waiting    []string    // for the next start, as last told
}

// follower of the file for a command that runs stages. It is made before the file is read, so that no change is missed.
func (c *cli) follower(command string) *follower {
	f := &follower{path: c.file(), load: func() (*Config, *findings) {
		cfg, found := c.read()
		if command == cmdServe {
			cfg.checkServed(found)
		}
		cfg.checkOdd(found, time.Now())
		return cfg, found
	}}
	if f.path != "" {
		f.read = f.stat()
		f.seen = f.read
	}
	return f
}

// openLive has the node follow the configuration file, if there is one, until it is closed.
func (n *node) openLive(ctx context.Context, f *follower, serves bool) {
	n.live = newLive(n.cfg, serves)
	if f.path == "" {
		return
	}
	f.live, f.log, n.follows = n.live, n.log, f
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	owned.Go(func() { f.follow(following) })
	n.onClose(func() error { stop(); owned.Wait(); return nil })
}

// follow follows the file until ctx ends. SIGHUP has it read at once.
func (f *follower) follow(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			f.seen = f.stat()
			f.reload()
		case <-ticker.C:
			f.look()
		}
	}
}

func (f *follower) stat() fs.FileInfo {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil // reading it says why
	}
	return info
}

// look reads the file if it has changed and rests.
func (f *follower) look() {
	there := f.stat()
	rests := certs.SameFile(f.seen, there)
	f.seen = there
	if rests && !certs.SameFile(f.read, there) {
		f.reload()
	}
}

// reload reads the file and puts it into effect. One that cannot be used changes nothing, and is read again when it has
// changed once more.
func (f *follower) reload() {
	f.read = f.seen
	next, found := f.load()
	if err := found.err(); err != nil {
		f.log.Error("the changed configuration cannot be used; the last good one stays in effect", telemetry.KeyError, err)
		return
	}
	found.warn(f.log)
	waiting := f.live.swap(next)
	f.log.Info("the configuration was read again", "file", f.path)
	if len(waiting) > 0 && !slices.Equal(waiting, f.waiting) {
		f.log.Warn("what changed here takes effect at the next start", "keys", waiting)
	}
	f.waiting = waiting
}
