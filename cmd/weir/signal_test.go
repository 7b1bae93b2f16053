package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is weir as a process of its own.
type program struct {
	process
	command *exec.Cmd
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	return startCommand(t, exec.Command(os.Args[0], args...))
}

func startCommand(t *testing.T, command *exec.Cmd) *program {
	t.Helper()
	p := &program{command: command}
	p.stdout, p.stderr, p.done = newLines(), newLines(), make(chan struct{})
	p.command.Env = append(os.Environ(), append(testEnvironment(), asProgram+"=1")...)
	p.command.Stdout, p.command.Stderr = p.stdout, p.stderr
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { _ = p.command.Process.Kill(); <-p.done })
	return p
}

func (p *program) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end and returns the state.
func (p *program) exit(t *testing.T, within time.Duration) syscall.WaitStatus {
	t.Helper()
	select {
	case <-p.done:
		return p.command.ProcessState.Sys().(syscall.WaitStatus)
	case <-time.After(within):
		t.Fatalf("it did not end within %s:\n%s", within, p.stderr)
		return 0
	}
}

func TestSignals(t *testing.T) {
	serve := startProgram(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off")
	line := serve.stderr.wait(t, "weir serve is ready: ")
	serve.HTTP = strings.TrimPrefix(strings.Fields(line)[4], "http://")
	serve.post(t, chat("endless", `,"stream":true,"x_echo":{"tokens":5000,"interval_ms":20}`)) // its status comes with the first event
	serve.signal(t, syscall.SIGTERM)
	serve.stderr.wait(t, "stopping")
	serve.signal(t, syscall.SIGTERM)
	if status := serve.exit(t, 30*time.Second); !status.Signaled() {
		t.Errorf("after a second signal: %v\n%s", serve.err, serve.stderr)
	}
}

// TestSignalsThatAShellIgnores: sh starts background jobs with SIGINT ignored, and a script may send it nevertheless.
func TestSignalsThatAShellIgnores(t *testing.T) {
	serve := startCommand(t, exec.Command("sh", "-c", `trap "" INT; exec "$0" "$@"`, os.Args[0],
		"serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off"))
	line := serve.stderr.wait(t, "weir serve is ready: ")
	serve.HTTP = strings.TrimPrefix(strings.Fields(line)[4], "http://")
	serve.post(t, chat("endless", `,"stream":true,"x_echo":{"tokens":5000,"interval_ms":20}`))
	serve.signal(t, syscall.SIGINT)
	serve.stderr.wait(t, "stopping")
	serve.signal(t, syscall.SIGINT)
	if status := serve.exit(t, time.Minute); status.ExitStatus() != 130 {
		t.Errorf("after a second signal: %v\n%s", serve.err, serve.stderr)
	}
}

func TestOneSignalEndsWithSuccess(t *testing.T) {
	serve := startProgram(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off")
	serve.stderr.wait(t, "weir serve is ready: ")
	serve.signal(t, syscall.SIGTERM)
	if status := serve.exit(t, time.Minute); status.ExitStatus() != 0 {
		t.Errorf("exit status %d\n%s", status.ExitStatus(), serve.stderr)
	}
}

func TestExitStatusAndMessage(t *testing.T) {
	p := startProgram(t, "servr")
	p.exit(t, time.Minute)
	if exit, ok := errors.AsType[*exec.ExitError](p.err); !ok || exit.ExitCode() != 2 {
		t.Errorf("it ended with %v", p.err)
	}
	if got := p.stderr.String(); !strings.HasPrefix(got, `weir: there is no command "servr"`) {
		t.Errorf("it printed %q", got)
	}
}
