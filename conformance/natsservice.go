package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tenant is the nats command as a tenant uses it: with an API key and the inbox of its own, and nothing else.
type tenant struct {
	natsCLI
	name, key string
}

const serviceModels = `models:
  echo: {backends: [{name: echo, protocol: echo}]}
  gpt-4.1: {backends: [{name: echo, protocol: echo}]}
`

// checkNATSService runs the clients of tenants against a server of its own, whose keys close it to all others.
func checkNATSService(ctx context.Context, r *report, weir, nats, node, dir string) (err error) {
	dir = filepath.Join(dir, "service")
	config := filepath.Join(dir, "weir.yaml")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(config, []byte(serviceModels), 0o600)); err != nil {
		return err
	}
	s, err := startServer(ctx, weir, dir, "--config", config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t := tenant{natsCLI: natsCLI{program: nats, server: s}, name: "acme"}
	if t.key, err = createKey(ctx, weir, s, t.name); err != nil {
		return err
	}
	failed := r.failed
	r.check(ctx, "nats service: the request of the documentation prints the answer", t.checkUnary)
	r.check(ctx, "nats service: a stream is printed as lines of events", t.checkStream)
	r.check(ctx, "nats service: an error is printed as the error object, with its headers", t.checkErrors)
	r.check(ctx, "nats service: an answer cut by killing the client is resumed, and nothing is missing or twice", t.checkResume)
	r.check(ctx, "nats service: cancel answers when the request has ended", t.checkCancel)
	r.check(ctx, "nats service: another tenant's subject and an inbox that is not one's own are refused", t.checkForeign)
	r.check(ctx, "nats service: micro ls, info and stats show it to the operator", t.checkMicro)
	checkNode(ctx, r, node, "nats.mjs", s.nats, t.key, t.name)
	if r.failed > failed {
		fmt.Fprintf(r.out, "weir serve of the NATS service printed:\n%s\n", s.output())
	}
	return nil
}

func createKey(ctx context.Context, weir string, s *server, tenant string) (string, error) {
	stdout, err := output(exec.CommandContext(ctx, weir, "keys", "create", "--tenant", tenant, "--data-dir", s.data, "--json"))
	if err != nil {
		return "", err
	}
	var printed struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal(stdout, &printed); err != nil || printed.Key == "" {
		return "", fmt.Errorf("weir keys create printed no key: %w", err)
	}
	return printed.Key, nil
}

// command is nats as the tenant runs it.
func (t tenant) command(ctx context.Context, args ...string) *exec.Cmd {
	return t.natsCLI.command(ctx, append([]string{"--token", t.key, "--inbox-prefix", "_INBOX_" + t.name}, args...)...)
}

// request is `nats req` as the documentation has it, up to the empty message, which the command prints as "nil body".
func (t tenant) request(ctx context.Context, subject, body string, more ...string) (lines []string, err error) {
	stdout, err := output(t.command(ctx, append([]string{
		"req", "--raw", "--timeout", "80s", "--reply-timeout", "60s", "--wait-for-empty", subject, body}, more...)...))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(stdout)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 || lines[len(lines)-1] != "nil body" {
		return nil, fmt.Errorf("the answer does not end with an empty message: %q", lines)
	}
	return lines[:len(lines)-1], nil
}

func (t tenant) checkUnary(ctx context.Context) error {
	lines, err := t.request(ctx, "llm.chat.acme.gpt-4=2E1", fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, prompt))
	if err != nil {
		return err
	}
	var completion struct {
		Object, Model string
		Choices       []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(strings.Join(lines, "\n")), &completion); err != nil {
		return err
	}
	if completion.Object != "chat.completion" || len(completion.Choices) != 1 || !strings.Contains(completion.Choices[0].Message.Content, "seven") {
		return fmt.Errorf("the answer is %q", lines)
	}
	return nil
}

func (t tenant) checkStream(ctx context.Context) error {
	lines, err := t.request(ctx, "llm.chat.acme.echo", body("echo", true))
	if err != nil {
		return err
	}
	text, err := textOf(lines)
	if err == nil && !strings.Contains(text, "seven") {
		err = fmt.Errorf("the answer is %q", text)
	}
	return err
}

func textOf(lines []string) (text string, err error) {
	for _, line := range lines {
		content, err := chunkContent([]byte(line))
		if err != nil {
			return "", err
		}
		text += content
	}
	return text, nil
}

func (t tenant) checkErrors(ctx context.Context) error {
	for _, c := range []struct{ subject, body, code, status string }{
		{"llm.chat.acme.none", `{"messages":[{"role":"user","content":"x"}]}`, "model_not_found", "404"},
		{"llm.chat.acme.echo", `{"model":"gpt-4.1","messages":[{"role":"user","content":"x"}]}`, "invalid_value", "400"},
		{"llm.resume.acme.never", "", "stream_not_found", "404"},
	} {
		lines, err := t.request(ctx, c.subject, c.body)
		if err != nil {
			return err
		}
		if len(lines) != 1 || !strings.Contains(lines[0], `"code":"`+c.code+`"`) {
			return fmt.Errorf("%s answers %q, want %s", c.subject, lines, c.code)
		}
		said, err := t.command(ctx, "req", "--timeout", "80s", c.subject, c.body).CombinedOutput()
		if err != nil || !bytes.Contains(said, []byte("Nats-Service-Error-Code: "+c.status)) {
			return fmt.Errorf("%s: nats req printed %s: %w", c.subject, said, err)
		}
	}
	return nil
}

// checkResume kills the client in the middle of its answer and asks for the rest.
func (t tenant) checkResume(ctx context.Context) error {
	const id, tokens = "conformance-service-cut", 40
	cutting, cut := context.WithCancel(ctx)
	defer cut()
	command := t.command(cutting, "req", "--raw", "--timeout", "80s", "--reply-timeout", "60s", "--wait-for-empty",
		"llm.chat.acme.echo", slowBody(tokens), "--header", "Llm-Request-Id:"+id)
	stdout, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	var before []string
	for scanner := bufio.NewScanner(stdout); len(before) < 5 && scanner.Scan(); {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			before = append(before, line)
		}
	}
	cut()
	_ = command.Wait() // it was killed
	rest, err := t.request(ctx, "llm.resume.acme."+id, fmt.Sprint(len(before)-1))
	if err != nil {
		return err
	}
	all, err := t.request(ctx, "llm.resume.acme."+id, "")
	if err != nil {
		return err
	}
	if joined := slices.Concat(before, rest); len(before) != 5 || !slices.Equal(joined, all) || len(all) < tokens {
		return fmt.Errorf("cut and resumed:\n%q\nread at once:\n%q", joined, all)
	}
	_, err = textOf(all)
	return err
}

func (t tenant) checkCancel(ctx context.Context) error {
	const id = "conformance-service-cancel"
	running, stop := context.WithCancel(ctx)
	defer stop()
	command := t.command(running, "req", "--raw", "--timeout", "80s", "--wait-for-empty", "llm.chat.acme.echo", slowBody(1000), "--header", "Llm-Request-Id:"+id)
	stdout, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	printed := bufio.NewScanner(stdout)
	if !printed.Scan() {
		return errors.New("no answer came")
	}
	lines, err := t.request(ctx, "llm.cancel.acme."+id, "")
	if err != nil || len(lines) != 1 || !strings.Contains(lines[0], `"status":"cancelled"`) {
		return fmt.Errorf("cancel answers %q: %w", lines, err)
	}
	told := false
	for printed.Scan() {
		told = told || strings.Contains(printed.Text(), `"code":"request_cancelled"`)
	}
	if err := command.Wait(); err != nil || !told {
		return fmt.Errorf("the caller was not told: %w", err)
	}
	return nil
}

func (t tenant) checkForeign(ctx context.Context) error {
	said, _ := t.command(ctx, "req", "--timeout", "5s", "llm.chat.other.echo", body("echo", false)).CombinedOutput()
	if !bytes.Contains(said, []byte("llm.chat.other.echo")) || !bytes.Contains(bytes.ToLower(said), []byte("permissions violation")) {
		return fmt.Errorf("nats req to another tenant printed %s", said)
	}
	// Without the option the inbox is _INBOX, which is nobody's.
	said, _ = t.natsCLI.command(ctx, "--token", t.key, "req", "--timeout", "5s", "llm.chat.acme.echo", body("echo", false)).CombinedOutput()
	if bytes.Contains(said, []byte("chat.completion")) || !bytes.Contains(bytes.ToLower(said), []byte("permissions violation")) {
		return fmt.Errorf("nats req with another inbox printed %s", said)
	}
	return nil
}

func (t tenant) checkMicro(ctx context.Context) error {
	operator := func(args ...string) (string, error) {
		command := exec.CommandContext(ctx, t.program, append([]string{"--context", "weir", "micro"}, args...)...)
		command.Env = append(command.Environ(), "XDG_CONFIG_HOME="+t.server.data)
		stdout, err := output(command)
		return string(stdout), err
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ls"}, []string{"weir"}},
		{[]string{"info", "weir"}, []string{"llm.chat.*.*", "llm.resume.*.*"}},
		{[]string{"stats", "weir"}, []string{"chat", "resume"}},
	} {
		printed, err := operator(c.args...)
		if err != nil {
			return err
		}
		for _, want := range c.want {
			if !strings.Contains(printed, want) {
				return fmt.Errorf("nats micro %v does not show %s: %s", c.args, want, printed)
			}
		}
	}
	return nil
}
