package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// diskMiB is the size of the disk that gets filled.
const diskMiB = 256

// runFullDisk fills the disk of a serve: at first nearly, then to the last byte, with requests under way. New requests must
// be refused and told so in readiness, and whatever was accepted must end in one result.
func runFullDisk(ctx context.Context, dir string, report *report) (err error) {
	c, err := newCluster(dir, single)
	if err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", c.work, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB)); err != nil {
		return fmt.Errorf("make a small disk (this needs root): %w", err)
	}
	defer func() { err = errors.Join(err, c.stopAll(), syscall.Unmount(c.work, syscall.MNT_DETACH)) }()
	if err := c.writeConfig(); err != nil {
		return err
	}
	if err := c.startAll(ctx); err != nil {
		return err
	}
	calls := []*call{newCall("disk-0", "echo", true, true, 60, 50), newCall("disk-1", "echo", true, true, 60, 50), newCall("disk-2", "echo", true, true, 60, 50)}
	if err := undisturbed(ctx, c, calls, c.nextCell(), "echo", 60); err != nil {
		return err
	}
	for i, leave := range []int64{32 << 20, 0} {
		err := runCalls(ctx, c, calls[i:i+1], func(ctx context.Context) error { return fillAndFree(ctx, c, calls[i], leave) })
		if err != nil {
			return fmt.Errorf("full disk, %d bytes left: %w", leave, err)
		}
	}
	if err := runCalls(ctx, c, calls[2:], func(context.Context) error { return nil }); err != nil {
		return fmt.Errorf("after the disk was full: %w", err)
	}
	tally, err := checkCalls(ctx, c, calls)
	report.add("serve", "disk", "nearly full, then full, mid-stream", tally)
	return err
}

// fillAndFree fills the disk while the call runs, sees that a new request is refused, and frees the disk. A disk that is
// full to the last byte stops the store for good, which readiness must say; the operator's restart then mends it.
func fillAndFree(ctx context.Context, c *cluster, running *call, leave int64) error {
	if err := wait(ctx, func(time.Duration) bool { return running.seen.Load() >= 5 }); err != nil {
		return err
	}
	ballast := filepath.Join(c.work, "ballast")
	if err := fill(c.work, ballast, leave); err != nil {
		return err
	}
	if err := wait(ctx, func(time.Duration) bool { return !c.ready(ctx, "serve") }); err != nil {
		return fmt.Errorf("readiness does not tell: %w", err)
	}
	refused := newCall("refused", "echo", true, true, 1, 0)
	if err := refused.once(ctx, c.http); !errors.Is(err, errAgain) {
		return fmt.Errorf("a request on a full disk: error %w, code %q, want %s", err, refused.code, schemas.CodeUnavailable)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if leave == 0 {
		if err := c.kill("serve"); err != nil {
			return err
		}
		if err := c.start("serve"); err != nil {
			return err
		}
	}
	return c.waitReady(ctx, "serve")
}

// fill writes a file until only that many bytes are free.
func fill(dir, name string, leave int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	size := max(int64(fs.Bavail)*fs.Bsize-leave, 0)
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for size > 0 || leave == 0 {
		n, err := file.Write(block[:min(int64(len(block)), max(size, 4096))])
		size -= int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return file.Close()
}
