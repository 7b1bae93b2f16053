package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/gjson"
)

// noticeLimit is how long an engine may go on after its caller was cancelled. A second is promised, of a machine that does
// nothing else; the answer would take longer than this.
const noticeLimit = 10 * time.Second

// engineConfig has the engine as a model, with as many calls at once as it has slots.
const engineConfig = "models:\n  noise: {backends: [{name: engine, protocol: openai, url: %q, max_in_flight: 4}], retry: {max_tries: 1}}\n"

// engine is llama.cpp behind a page of HTTP, with Weir in front of it.
type engine struct {
	*server
	url     string // of the engine itself
	command *exec.Cmd
	printed *lockedBuffer
}

// checkEngine runs a real engine: what fakes cannot show is that it streams as it thinks, and stops when it is told to.
func checkEngine(ctx context.Context, r *report, weir, node, script, dir string) (err error) {
	if script == "" {
		fmt.Fprintln(r.out, "left out: the checks with llama.cpp, which npm has prebuilt for Linux on x64")
		return nil
	}
	dir = filepath.Join(dir, "engine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	e, err := startEngine(ctx, weir, node, script, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	r.check(ctx, "llama.cpp: a stream has an event for each token, and says the same as the whole answer", e.streamsAsItAnswers)
	r.check(ctx, "llama.cpp: cancelled, it stops, streaming or not", e.stops)
	r.check(ctx, "llama.cpp: 12 callers share 4 slots, all of them at once, and each gets its whole answer", e.shares)
	return nil
}

func startEngine(ctx context.Context, weir, node, script, dir string) (*engine, error) {
	e := &engine{command: exec.Command(node, script, dir), printed: &lockedBuffer{}}
	e.command.Stderr = e.printed
	output, err := e.command.StdoutPipe()
	if err == nil {
		err = e.command.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	timer := time.AfterFunc(checkLimit, func() { _ = e.command.Process.Kill() }) // which ends the read
	line, err := bufio.NewReader(output).ReadString('\n')
	timer.Stop()
	e.url = strings.TrimSpace(line)
	file := filepath.Join(dir, "weir.yaml")
	if err == nil {
		err = os.WriteFile(file, fmt.Appendf(nil, engineConfig, e.url+"/v1"), 0o600)
	}
	if err == nil {
		e.server, err = startServer(ctx, weir, dir, "--config", file)
	}
	if err != nil {
		_ = e.stop()
		return nil, fmt.Errorf("the engine or its server did not start: %w; the engine printed:\n%s", err, e.printed)
	}
	return e, nil
}

// Close ends the server and the engine.
func (e *engine) Close() error { return errors.Join(e.server.Close(), e.stop()) }

func (e *engine) stop() error {
	if err := e.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = e.command.Wait() // it was killed
	return nil
}

// engineStats is what the engine tells of itself.
type engineStats struct{ Slots, Running, Peak, Finished, Aborted, Tokens int }

func (e *engine) stats(ctx context.Context) (stats engineStats, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"/stats", nil)
	if err != nil {
		return stats, err
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return stats, err
	}
	defer func() { _ = response.Body.Close() }()
	return stats, json.NewDecoder(response.Body).Decode(&stats)
}

// because is an error that says what was seen, and err if there is one.
func because(err error, format string, seen ...any) error {
	return errors.Join(err, fmt.Errorf(format, seen...))
}

// noiseBody is a request for so many tokens, always the same ones.
func noiseBody(tokens int, members string) []byte {
	return fmt.Appendf(nil, `{"model":"noise","temperature":0,"ignore_eos":true,"max_tokens":%d,"messages":[{"role":"user","content":"hello"}]%s}`, tokens, members)
}

// whole asks for an answer in one piece.
func (e *engine) whole(ctx context.Context, tokens int) (text string, err error) {
	status, data, err := e.do(ctx, http.MethodPost, "/v1/chat/completions", nil, noiseBody(tokens, ""))
	if err != nil {
		return "", err
	}
	answer := gjson.ParseBytes(data)
	if got := answer.Get("usage.completion_tokens").Int(); status != http.StatusOK || got != int64(tokens) || answer.Get("choices.0.finish_reason").Str != "length" {
		return "", fmt.Errorf("status %d, %d tokens of %d: %s", status, got, tokens, data)
	}
	return answer.Get("choices.0.message.content").Str, nil
}

// stream asks for an answer and reads its events, up to so many.
func (e *engine) stream(ctx context.Context, id string, tokens, events int) ([]event, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.http+"/v1/chat/completions", strings.NewReader(string(noiseBody(tokens, `,"stream":true,"stream_options":{"include_usage":true}`))))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Llm-Request-Id", id)
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	read, rest := readEvents(response.Body, events)
	if len(read) == 0 {
		return nil, fmt.Errorf("status %d, no event: %s", response.StatusCode, rest)
	}
	return read, nil
}

func (e *engine) streamsAsItAnswers(ctx context.Context) error {
	const tokens = 40
	want, err := e.whole(ctx, tokens)
	if err != nil {
		return err
	}
	events, err := e.stream(ctx, "engine-stream", tokens, 0)
	if err != nil {
		return err
	}
	if err := wholeStream(events, "engine-stream", 0); err != nil {
		return err
	}
	var text strings.Builder
	count, usage := 0, int64(0)
	for _, event := range events {
		if delta := gjson.Get(event.data, "choices.0.delta.content"); delta.Str != "" {
			text.WriteString(delta.Str)
			count++
		}
		usage += gjson.Get(event.data, "usage.completion_tokens").Int()
	}
	if text.String() != want || count > tokens || usage != tokens {
		return fmt.Errorf("%d events and %d tokens say %q, and the whole answer %q", count, usage, text.String(), want)
	}
	return nil
}

// stops cancels long answers and looks at the engine itself.
func (e *engine) stops(ctx context.Context) error {
	const long = 8000 // tokens: some seconds
	for i, begin := range []func(id string) error{
		func(id string) error { _, err := e.stream(ctx, id, long, 3); return err },
		func(id string) error { return e.begin(ctx, id, long) },
	} {
		id := fmt.Sprint("engine-cancel-", i)
		if err := begin(id); err != nil {
			return err
		}
		before, err := e.stats(ctx)
		if err != nil || before.Running != 1 {
			return because(err, "%+v while one answer should run", before)
		}
		cancelled := time.Now()
		if status, data, err := e.do(ctx, http.MethodPost, "/v1/streams/"+id+"/cancel", nil, nil); err != nil || status >= 300 {
			return because(err, "cancel: status %d, %s", status, data)
		}
		var after engineStats
		err = poll(ctx, func() (bool, error) {
			after, err = e.stats(ctx)
			return after.Running == 0, err
		})
		if took := time.Since(cancelled); err != nil || after.Aborted != before.Aborted+1 || took > noticeLimit {
			return because(err, "after %v the engine says %+v, before %+v", took, after, before)
		}
	}
	return nil
}

// begin sends a request for a whole answer, which is not waited for, and returns when the engine runs it.
func (e *engine) begin(ctx context.Context, id string, tokens int) error {
	header := http.Header{"Llm-Request-Id": {id}, "Prefer": {"respond-async"}}
	if status, data, err := e.do(ctx, http.MethodPost, "/v1/chat/completions", header, noiseBody(tokens, "")); err != nil || status != http.StatusAccepted {
		return because(err, "status %d, %s", status, data)
	}
	return poll(ctx, func() (bool, error) {
		stats, err := e.stats(ctx)
		return stats.Running == 1, err
	})
}

// shares has more callers than the engine has slots.
func (e *engine) shares(ctx context.Context) error {
	const callers, tokens = 12, 60
	var group sync.WaitGroup
	problems := make([]error, callers)
	for i := range callers {
		group.Go(func() { _, problems[i] = e.whole(ctx, tokens) })
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	var stats engineStats
	err := poll(ctx, func() (done bool, err error) { // it counts down when it has said its last word
		stats, err = e.stats(ctx)
		return stats.Running == 0, err
	})
	if err != nil || stats.Peak != stats.Slots {
		return because(err, "the engine says %+v", stats)
	}
	return nil
}
