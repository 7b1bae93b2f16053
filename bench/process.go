package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tick is the unit of times in /proc/<pid>/stat; Linux reports them in hundredths of a second on every architecture Go runs on.
const tick = 10 * time.Millisecond

// process is a server that the benchmark started, with its children.
type process struct {
	command *exec.Cmd
	output  tailBuffer
	exited  chan struct{}
}

// startProcess starts the program; what it prints is kept for an error message.
func startProcess(program string, args ...string) (*process, error) {
	p := &process{command: exec.Command(program, args...), exited: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		_ = p.command.Wait() // the exit status says nothing that its output does not
		close(p.exited)
	}()
	return p, nil
}

// Close ends the process and waits for it: first gently, then not.
func (p *process) Close() error {
	err := p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(10 * time.Second):
		err = errors.Join(err, p.command.Process.Kill())
		<-p.exited
		return err
	}
}

func (p *process) pid() int { return p.command.Process.Pid }

// tree returns the process and its descendants.
func tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		// A process that has just gone has no children.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[i], pids[i]))
		for field := range strings.FieldsSeq(string(children)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// cpuTime returns the user and system time of the process and its descendants.
func cpuTime(pid int) (time.Duration, error) {
	var sum time.Duration
	for _, p := range tree(pid) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if gone(err) && p != pid {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		spent, err := parseStat(stat)
		if err != nil {
			return 0, err
		}
		sum += spent
	}
	return sum, nil
}

// ownCPU is the user and system time of this process alone.
func ownCPU() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// gone reports whether a process ended between the look at the tree and the look at it.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// parseStat reads utime and stime, the 14th and 15th fields; the second may hold spaces and parentheses.
func parseStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU time: %q is not a line of /proc/<pid>/stat", stat)
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}

// residentBytes returns the resident memory of the process and its descendants.
func residentBytes(pid int) (int64, error) {
	var sum int64
	for _, p := range tree(pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if gone(err) && p != pid {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read resident memory: %w", err)
		}
		resident, err := parseStatus(string(status))
		if err != nil {
			return 0, err
		}
		sum += resident
	}
	return sum, nil
}

// parseStatus reads the resident memory, of which a process that has ended and is not yet waited for has none.
func parseStatus(status string) (int64, error) {
	if strings.Contains(status, "\nState:\tZ") {
		return 0, nil
	}
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("read resident memory: no VmRSS")
}

// settle waits until the process has used at most one tick of CPU in a tenth of a second, at most limit, and returns how
// long that took.
func settle(ctx context.Context, pid int, limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	before, err := cpuTime(pid)
	for err == nil && time.Since(begin) < limit {
		if !waitUntil(ctx, time.Now().Add(100*time.Millisecond)) {
			return 0, ctx.Err()
		}
		var now time.Duration
		if now, err = cpuTime(pid); now-before <= tick {
			break
		}
		before = now
	}
	return time.Since(begin), err
}

// tailBuffer keeps the last bytes written to it. It is safe for concurrent use.
type tailBuffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if extra := len(b.data) - 4096; extra > 0 {
		b.data = append(b.data[:0], b.data[extra:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data)
}

// beLight makes this process take less of the cores that it shares with what it measures: few collections, and no more
// threads than given. With one thread idle threads do not spin for work, which favours slow targets, and fast ones may
// find the generator slower: nginx loses about a tenth.
func beLight(procs int) {
	debug.SetGCPercent(400)
	runtime.GOMAXPROCS(procs)
}
