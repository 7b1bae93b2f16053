package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// natsCLI is the nats command, pointed at the server and at no context of whoever runs the checks.
type natsCLI struct {
	program string
	server  *server
}

func (n natsCLI) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, n.program, append([]string{"--no-context", "--server", n.server.nats}, args...)...)
	command.Env = append(command.Environ(), "XDG_CONFIG_HOME="+filepath.Join(n.server.dir, "no-config"))
	return command
}

func (n natsCLI) run(ctx context.Context, args ...string) (stdout []byte, err error) {
	return output(n.command(ctx, args...))
}

func output(command *exec.Cmd) ([]byte, error) {
	var problems bytes.Buffer
	command.Stderr = &problems
	stdout, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(command.Args[1:], " "), err, &problems)
	}
	return stdout, nil
}

// request publishes a request with `nats req`, which prints the acknowledgement of JetStream, and returns its sequence.
func (n natsCLI) request(ctx context.Context, model, id, body string) (uint64, error) {
	args := []string{"req", "--raw", "llm.requests.default." + model, body}
	if id != "" {
		args = append(args, "--header", "Llm-Request-Id:"+id)
	}
	stdout, err := n.run(ctx, args...)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Stream string          `json:"stream"`
		Seq    uint64          `json:"seq"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(stdout), &ack); err != nil || ack.Stream != "LLM_REQUESTS" || ack.Seq == 0 || ack.Error != nil {
		return 0, fmt.Errorf("the reply is no acceptance: %s", stdout)
	}
	return ack.Seq, nil
}

// stored reads what a stream holds under a subject.
func (n natsCLI) stored(ctx context.Context, stream, subject string) ([]message, error) {
	stdout, err := n.run(ctx, "sub", "--stream", stream, subject, "--all", "--terminate-at-end", "--dump=-")
	if err != nil {
		return nil, err
	}
	var all []message
	for data := range bytes.SplitSeq(stdout, []byte{0}) {
		if len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		m, err := decodeMessage(data)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// finished waits until the stream holds the terminal frame of the request and returns its frames.
func (n natsCLI) finished(ctx context.Context, id string) (frames []message, err error) {
	err = poll(ctx, func() (bool, error) {
		frames, err = n.stored(ctx, "LLM_REPLIES", "llm.replies.default."+id)
		return len(frames) > 0 && frames[len(frames)-1].terminal(), err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no terminal frame among %v", headers(frames))
	}
	return frames, err
}

// live subscribes to subject, calls publish once the subscription is in place, and returns what arrives until the
// terminal frame.
func (n natsCLI) live(ctx context.Context, subject string, publish func() error) (frames []message, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The second subject is subscribed after the first on the same connection, so once it delivers, the first does too.
	const probe = "conformance.probe"
	command := n.command(ctx, "sub", subject, probe, "--dump=-")
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	defer func() {
		cancel()
		_ = command.Wait() // it was told to end
	}()
	arrived := make(chan message)
	go scanMessages(ctx, stdout, arrived)
	err = poll(ctx, func() (bool, error) {
		if _, err := n.run(ctx, "pub", probe, "here?"); err != nil {
			return false, err
		}
		select {
		case m, ok := <-arrived:
			return ok && m.Subject == probe, nil
		default:
			return false, nil
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if err := publish(); err != nil {
		return nil, err
	}
	for {
		select {
		case m, ok := <-arrived:
			if !ok {
				return nil, fmt.Errorf("nats sub ended after %v", headers(frames))
			}
			if m.Subject == probe {
				continue
			}
			if frames = append(frames, m); m.terminal() {
				return frames, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no terminal frame live after %v", headers(frames))
		}
	}
}

func scanMessages(ctx context.Context, stdout interface{ Read([]byte) (int, error) }, arrived chan<- message) {
	defer close(arrived)
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(nil, 16<<20)
	scanner.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if end := bytes.IndexByte(data, 0); end >= 0 {
			return end + 1, data[:end], nil
		}
		return 0, nil, nil
	})
	for scanner.Scan() {
		m, err := decodeMessage(scanner.Bytes())
		if err != nil {
			return
		}
		select {
		case arrived <- m:
		case <-ctx.Done():
			return
		}
	}
}

// message is what `nats sub --dump` writes.
type message struct {
	Subject string
	Header  map[string][]string
	Data    []byte
}

func decodeMessage(data []byte) (message, error) {
	var m message
	if err := json.Unmarshal(bytes.TrimSpace(data), &m); err != nil {
		return m, fmt.Errorf("read what nats sub dumps: %w: %.200s", err, data)
	}
	return m, nil
}

func (m message) header(key string) string {
	if v := m.Header[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// frame returns kind, first index and count of the frame's header, and empty words for what is none.
func (m message) frame() (kind string, index, count int) {
	words := strings.Fields(m.header("Llm-Frame"))
	if len(words) < 5 {
		return "", 0, 0
	}
	index, _ = strconv.Atoi(words[3])
	count, _ = strconv.Atoi(words[4])
	return words[0], index, count
}

func (m message) terminal() bool {
	kind, _, _ := m.frame()
	return kind == "end" || kind == "error"
}

func headers(frames []message) []string {
	var all []string
	for _, f := range frames {
		all = append(all, f.header("Llm-Frame"))
	}
	return all
}
