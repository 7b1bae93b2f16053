package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus/bustest"
)

// asProgram makes the test binary behave as weir itself, for tests about signals and exit codes.
const asProgram = "WEIR_TEST_AS_PROGRAM"

// TestMain checks that nothing that the program starts outlives it.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	bustest.Parallel()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // its goroutine begins here, and stays
	signal.Stop(hangups)
	before := bustest.Goroutines()
	code := m.Run()
	if code == 0 {
		if left := leaked(before); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines are left over:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked is the stacks of the goroutines when there are still more than allowed after a while, else empty.
func leaked(allowed int) string {
	for deadline := time.Now().Add(time.Minute); bustest.Goroutines() > allowed; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			return string(stacks[:runtime.Stack(stacks, true)])
		}
	}
	return ""
}

// lines is a writer whose lines can be waited for.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at each write
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns the first complete line that holds what.
func (l *lines) wait(t *testing.T, what string) string {
	t.Helper()
	return l.waitFor(t, what, nil)
}

// waitFor is wait, and returns nothing when done is closed before.
func (l *lines) waitFor(t *testing.T, what string, done <-chan struct{}) string {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		l.mu.Lock()
		changed := l.changed
		for line := range strings.Lines(l.text.String()) {
			if strings.Contains(line, what) && strings.HasSuffix(line, "\n") {
				l.mu.Unlock()
				return line
			}
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			return ""
		case <-limit:
			t.Fatalf("no line with %q after a minute in:\n%s", what, l)
		}
	}
}

// process is the program, running.
type process struct {
	HTTP, NATS, Admin string

	stdout, stderr *lines
	stop           context.CancelFunc
	done           chan struct{}
	err            error // once done is closed
}

// testEnvironment has what makes tests fast.
func testEnvironment() []string { return []string{"WEIR_DURABILITY=process", "WEIR_LEASE=2s"} }

// begin starts the program and does not wait.
func begin(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{stdout: newLines(), stderr: newLines(), done: make(chan struct{})}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	go func() {
		defer close(p.done)
		p.err = run(ctx, args, append(testEnvironment(), env...), strings.NewReader(""), p.stdout, p.stderr)
	}()
	t.Cleanup(func() { p.stop(); <-p.done })
	return p
}

// start runs a command with stages on ports of its own, and returns when it is ready.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := begin(t, env, append(args, "--json", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0")...)
	line := p.stderr.waitFor(t, `"msg":"ready"`, p.done)
	if line == "" {
		t.Fatalf("weir %s ended before it was ready: %v\n%s", args[0], p.err, p.stderr)
	}
	if err := json.Unmarshal([]byte(line), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// end stops the program as a signal does and returns its error.
func (p *process) end(t *testing.T) error {
	t.Helper()
	p.stop()
	select {
	case <-p.done:
		return p.err
	case <-time.After(2 * time.Minute):
		t.Fatalf("it did not stop within two minutes:\n%s", p.stderr)
		return nil
	}
}

// call runs a command to its end.
func call(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return callWith(t, nil, strings.NewReader(""), args...)
}

func callWith(t *testing.T, env []string, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	err = run(ctx, args, env, stdin, &out, &errs)
	return out.String(), errs.String(), err
}
