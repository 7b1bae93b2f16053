package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

func checkNATSCLI(ctx context.Context, r *report, s *server, n natsCLI) {
	r.check(ctx, "nats: a published request streams its frames live, and the stream holds the same", n.checkLiveAndStored)
	r.check(ctx, "nats: a bare publish is answered under the sequence of its acknowledgement", n.checkBarePublish)
	r.check(ctx, "nats: pub --jetstream says that the request is stored", n.checkPub)
	r.check(ctx, "nats: a unary answer is one frame", n.checkUnary)
	r.check(ctx, "nats: a message that cannot be parsed gets an error frame and a DLQ record with the reason", n.checkGarbage)
	r.check(ctx, "nats: unknown model, reserved id and expired deadline get error frames", n.checkRefusals)
	r.check(ctx, "nats: cancel ends a running answer with an error frame", n.checkCancel)
	r.check(ctx, "nats: completions and embeddings, by the header Llm-Op", n.checkOps)
	r.check(ctx, "nats: the operator's context that serve wrote works", n.checkContext)
}

func body(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":%q}]}`, model, stream, prompt)
}

// slowBody asks for a streamed answer of so many tokens, slow enough to be cut while it runs.
func slowBody(tokens int) string {
	return fmt.Sprintf(`{"model":"echo","stream":true,"messages":[{"role":"user","content":%q}],"x_echo":{"interval_ms":20,"tokens":%d}}`, prompt, tokens)
}

func (n natsCLI) checkLiveAndStored(ctx context.Context) error {
	const id = "conformance-live"
	live, err := n.live(ctx, "llm.replies.default."+id, func() error {
		_, err := n.request(ctx, "echo", id, body("echo", true))
		return err
	})
	if err != nil {
		return err
	}
	text, err := readChain(live)
	if err != nil {
		return fmt.Errorf("live: %w", err)
	}
	if !strings.Contains(text, "seven") {
		return fmt.Errorf("the answer is %q", text)
	}
	stored, err := n.stored(ctx, "LLM_REPLIES", "llm.replies.default."+id)
	if err != nil {
		return err
	}
	same := func(a, b message) bool {
		return a.Subject == b.Subject && a.header("Llm-Frame") == b.header("Llm-Frame") && bytes.Equal(a.Data, b.Data)
	}
	if !slices.EqualFunc(live, stored, same) {
		return fmt.Errorf("live and stored differ:\n%v\n%v", headers(live), headers(stored))
	}
	return n.checkSingleReads(ctx, live)
}

// checkSingleReads reads each frame by the sequence that came with it live.
func (n natsCLI) checkSingleReads(ctx context.Context, live []message) error {
	for _, f := range live {
		stdout, err := n.run(ctx, "stream", "get", "LLM_REPLIES", f.header("Nats-Sequence"), "--json")
		if err != nil {
			return err
		}
		var got struct {
			Subject string `json:"subject"`
			Data    []byte `json:"data"`
		}
		if err := json.Unmarshal(stdout, &got); err != nil {
			return fmt.Errorf("read %s: %w", stdout, err)
		}
		if got.Subject != f.Subject || !bytes.Equal(got.Data, f.Data) {
			return fmt.Errorf("frame %q is stored as %s %s", f.header("Llm-Frame"), got.Subject, got.Data)
		}
	}
	return nil
}

func (n natsCLI) checkBarePublish(ctx context.Context) error {
	sequence, err := n.request(ctx, "echo", "", body("echo", true))
	if err != nil {
		return err
	}
	frames, err := n.finished(ctx, fmt.Sprint("s", sequence))
	if err != nil {
		return err
	}
	_, err = readChain(frames)
	return err
}

func (n natsCLI) checkPub(ctx context.Context) error {
	command := n.command(ctx, "pub", "--jetstream", "llm.requests.default.echo", body("echo", true), "--header", "Llm-Request-Id:conformance-pub")
	said, err := command.CombinedOutput()
	if err != nil || !bytes.Contains(said, []byte("Stored in Stream: LLM_REQUESTS")) {
		return fmt.Errorf("nats pub said %q: %v", said, err)
	}
	frames, err := n.finished(ctx, "conformance-pub")
	if err != nil {
		return err
	}
	_, err = readChain(frames)
	return err
}

func (n natsCLI) checkUnary(ctx context.Context) error {
	if _, err := n.request(ctx, "echo", "conformance-unary", body("echo", false)); err != nil {
		return err
	}
	frames, err := n.finished(ctx, "conformance-unary")
	if err != nil {
		return err
	}
	last := frames[len(frames)-1]
	if kind, index, count := last.frame(); kind != "end" || index != 0 || count != 1 {
		return fmt.Errorf("frames are %v", headers(frames))
	}
	var completion struct {
		Object  string `json:"object"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(last.Data, &completion); err != nil {
		return err
	}
	if completion.Object != "chat.completion" || len(completion.Choices) != 1 || !strings.Contains(completion.Choices[0].Message.Content, "seven") {
		return fmt.Errorf("the response is %s", last.Data)
	}
	return nil
}

func (n natsCLI) checkGarbage(ctx context.Context) error {
	const id = "conformance-garbage"
	if _, err := n.request(ctx, "echo", id, "this is no JSON"); err != nil {
		return err
	}
	if err := n.wantErrorFrame(ctx, id, "invalid_json"); err != nil {
		return err
	}
	err := poll(ctx, func() (bool, error) {
		records, err := n.stored(ctx, "LLM_DLQ", "llm.dlq.default.echo")
		return slices.ContainsFunc(records, func(m message) bool {
			return m.header("Llm-Request-Id") == id && m.header("Llm-Reason") != "" && string(m.Data) == "this is no JSON"
		}), err
	})
	if err != nil {
		return fmt.Errorf("look for the DLQ record: %w", err)
	}
	return nil
}

func (n natsCLI) checkRefusals(ctx context.Context) error {
	if _, err := n.request(ctx, "no-such-model", "conformance-unknown", body("no-such-model", true)); err != nil {
		return err
	}
	if err := n.wantErrorFrame(ctx, "conformance-unknown", "model_not_found"); err != nil {
		return err
	}
	sequence, err := n.request(ctx, "echo", "s17", body("echo", true))
	if err != nil {
		return err
	}
	if err := n.wantErrorFrame(ctx, fmt.Sprint("s", sequence), "invalid_value"); err != nil {
		return fmt.Errorf("reserved id: %w", err)
	}
	if _, err := n.run(ctx, "req", "--raw", "llm.requests.default.echo", body("echo", true),
		"--header", "Llm-Request-Id:conformance-late", "--header", "Llm-Deadline:1000"); err != nil {
		return err
	}
	return n.wantErrorFrame(ctx, "conformance-late", "deadline_exceeded")
}

func (n natsCLI) wantErrorFrame(ctx context.Context, id, code string) error {
	frames, err := n.finished(ctx, id)
	if err != nil {
		return err
	}
	last := frames[len(frames)-1]
	var object struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Type    string `json:"type"`
		} `json:"error"`
	}
	if err := json.Unmarshal(last.Data, &object); err != nil {
		return fmt.Errorf("frames of %s are %v and the last says %q: %w", id, headers(frames), last.Data, err)
	}
	if kind, _, count := last.frame(); kind != "error" || count != 0 || object.Error.Code != code || object.Error.Message == "" {
		return fmt.Errorf("frames of %s are %v and the last says %s: want an error with code %s", id, headers(frames), last.Data, code)
	}
	return nil
}

func (n natsCLI) checkCancel(ctx context.Context) error {
	const id = "conformance-cancel"
	if _, err := n.request(ctx, "echo", id, slowBody(1000)); err != nil {
		return err
	}
	err := poll(ctx, func() (bool, error) {
		frames, err := n.stored(ctx, "LLM_REPLIES", "llm.replies.default."+id)
		return slices.ContainsFunc(frames, func(m message) bool { kind, _, _ := m.frame(); return kind == "delta" }), err
	})
	if err != nil {
		return fmt.Errorf("wait for the first token: %w", err)
	}
	if _, err := n.run(ctx, "pub", "llm.cancel.default."+id, ""); err != nil {
		return err
	}
	return n.wantErrorFrame(ctx, id, "request_cancelled")
}

func (n natsCLI) checkContext(ctx context.Context) error {
	command := exec.CommandContext(ctx, n.program, "--context", "weir", "stream", "ls", "--names")
	command.Env = append(command.Environ(), "XDG_CONFIG_HOME="+n.server.data)
	stdout, err := output(command)
	if err != nil {
		return err
	}
	for _, stream := range []string{"LLM_REQUESTS", "LLM_WORK", "LLM_REPLIES", "LLM_RESULTS", "LLM_DLQ", "LLM_EVENTS"} {
		if !strings.Contains(string(stdout), stream) {
			return fmt.Errorf("stream %s is not among %s", stream, stdout)
		}
	}
	return nil
}

// readChain checks that frames are one whole streamed answer and returns its text.
func readChain(frames []message) (string, error) {
	text, next := "", 0
	for i, f := range frames {
		kind, index, count := f.frame()
		if index != next || f.terminal() != (i == len(frames)-1) {
			return "", fmt.Errorf("frame %d does not follow: %v", i, headers(frames))
		}
		next += count
		if kind != "delta" {
			continue
		}
		lines := bytes.Split(f.Data, []byte{'\n'})
		if len(lines) != count {
			return "", fmt.Errorf("frame %q holds %d events", f.header("Llm-Frame"), len(lines))
		}
		for _, line := range lines {
			content, err := chunkContent(line)
			if err != nil {
				return "", err
			}
			text += content
		}
	}
	if kind, _, _ := frames[len(frames)-1].frame(); kind != "end" || next == 0 {
		return "", fmt.Errorf("want an answer that is whole: %v, %s", headers(frames), frames[len(frames)-1].Data)
	}
	return text, nil
}

func chunkContent(line []byte) (string, error) {
	var chunk struct {
		Object  string `json:"object"`
		Choices []struct {
			Delta struct {
				Content string `json:"content"`
			} `json:"delta"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(line, &chunk); err != nil || chunk.Object != "chat.completion.chunk" {
		return "", fmt.Errorf("%q is no chunk: %v", line, err)
	}
	if len(chunk.Choices) == 0 {
		return "", nil
	}
	return chunk.Choices[0].Delta.Content, nil
}
