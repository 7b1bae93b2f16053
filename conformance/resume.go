package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
)

// event is a server-sent event as curl prints it.
type event struct{ id, data string }

// checkResume uses curl as a browser's EventSource would: it remembers the last id and sends it back.
func checkResume(ctx context.Context, r *report, s *server) {
	r.check(ctx, "curl: an answer cut after 1, 3 and 5 events goes on from Last-Event-ID", func(ctx context.Context) error {
		for _, cut := range []int{1, 3, 5} {
			if err := cutAndResume(ctx, s, fmt.Sprint("conformance-cut-", cut), cut); err != nil {
				return fmt.Errorf("cut after %d: %w", cut, err)
			}
		}
		return nil
	})
	r.check(ctx, "curl: a finished answer resumes after every event, by header and by query", func(ctx context.Context) error {
		return resumeEverywhere(ctx, s, "conformance-cut-3")
	})
	r.check(ctx, "curl: an answer published with the nats CLI reads the same over HTTP", func(ctx context.Context) error {
		events, err := curl(ctx, 0, s.http+"/v1/streams/conformance-live")
		if err != nil {
			return err
		}
		return wholeStream(events, "conformance-live", 0)
	})
	r.check(ctx, "curl: the result is there, and bad cursors and unknown streams are refused", func(ctx context.Context) error {
		return resultAndRefusals(ctx, s, "conformance-cut-3")
	})
	r.check(ctx, "curl: cancel by HTTP ends a running answer with an error event", func(ctx context.Context) error {
		return cancelByHTTP(ctx, s, "conformance-cancel-http")
	})
}

func cutAndResume(ctx context.Context, s *server, id string, cut int) error {
	before, err := ask(ctx, s, id, 20, cut)
	if err != nil {
		return err
	}
	if len(before) != cut {
		return fmt.Errorf("got only %d events: %v", len(before), before)
	}
	after, err := curl(ctx, 0, "-H", "Last-Event-ID: "+before[cut-1].id, s.http+"/v1/streams/"+id)
	if err != nil {
		return err
	}
	all, err := curl(ctx, 0, s.http+"/v1/streams/"+id)
	if err != nil {
		return err
	}
	if joined := append(before, after...); !slices.Equal(joined, all) {
		return fmt.Errorf("cut and resumed:\n%v\nread at once:\n%v", joined, all)
	}
	return wholeStream(all, id, 0)
}

// ask posts a request for a slow answer of so many tokens and stops reading after so many events.
func ask(ctx context.Context, s *server, id string, tokens, events int) ([]event, error) {
	return curl(ctx, events, "-H", "Content-Type: application/json", "-H", "Llm-Request-Id: "+id, "-d", slowBody(tokens),
		s.http+"/v1/chat/completions")
}

func resumeEverywhere(ctx context.Context, s *server, id string) error {
	all, err := curl(ctx, 0, s.http+"/v1/streams/"+id)
	if err != nil {
		return err
	}
	for i := range len(all) - 1 { // the last is [DONE], which has no id
		for _, args := range [][]string{
			{"-H", "Last-Event-ID: " + all[i].id, s.http + "/v1/streams/" + id},
			{fmt.Sprintf("%s/v1/streams/%s?starting_after=%d", s.http, id, i)},
		} {
			rest, err := curl(ctx, 0, args...)
			if err != nil {
				return err
			}
			if !slices.Equal(rest, all[i+1:]) {
				return fmt.Errorf("%v gives\n%v\nwant\n%v", args, rest, all[i+1:])
			}
		}
	}
	return nil
}

// wholeStream checks that the ids count from first without a gap and that the stream ends as an answer that is whole does.
func wholeStream(events []event, id string, first int) error {
	for i, e := range events {
		if i == len(events)-1 {
			if e.data != "[DONE]" {
				return fmt.Errorf("the stream ends with %v", e)
			}
			continue
		}
		if want := fmt.Sprintf("%s.%d", id, first+i); e.id != want || !json.Valid([]byte(e.data)) {
			return fmt.Errorf("event %d is %v, want JSON with id %s", i, e, want)
		}
	}
	if len(events) < 3 {
		return fmt.Errorf("only %d events", len(events))
	}
	return nil
}

func resultAndRefusals(ctx context.Context, s *server, id string) error {
	err := poll(ctx, func() (bool, error) {
		status, data, err := s.get(ctx, "/v1/streams/"+id+"/result")
		if err == nil && status != http.StatusOK && status != http.StatusAccepted {
			err = fmt.Errorf("the result: status %d: %s", status, data)
		}
		if err == nil && status == http.StatusOK && !json.Valid(data) {
			err = fmt.Errorf("the result is %s", data)
		}
		return status == http.StatusOK, err
	})
	if err != nil {
		return err
	}
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/v1/streams/no-such-stream":               {http.StatusNotFound, "stream_not_found"},
		"/v1/streams/no-such-stream/result":        {http.StatusNotFound, "stream_not_found"},
		"/v1/streams/" + id + "?starting_after=-7": {http.StatusBadRequest, "invalid_value"},
		"/v1/streams/" + id + "?starting_after=x":  {http.StatusBadRequest, "invalid_value"},
	} {
		status, data, err := s.get(ctx, path)
		if err != nil {
			return err
		}
		var object struct {
			Error struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal(data, &object); err != nil || status != want.status || object.Error.Code != want.code {
			return fmt.Errorf("GET %s: status %d: %s: want %d %s", path, status, data, want.status, want.code)
		}
	}
	return nil
}

func cancelByHTTP(ctx context.Context, s *server, id string) error {
	if _, err := ask(ctx, s, id, 1000, 1); err != nil {
		return err
	}
	if status, data, err := s.do(ctx, http.MethodPost, "/v1/streams/"+id+"/cancel", nil, nil); err != nil || status/100 != 2 {
		return fmt.Errorf("cancel: status %d: %s: %v", status, data, err)
	}
	events, err := curl(ctx, 0, s.http+"/v1/streams/"+id)
	if err != nil {
		return err
	}
	if last := events[len(events)-1].data; !strings.Contains(last, `"error"`) || !strings.Contains(last, `"request_cancelled"`) {
		return fmt.Errorf("the stream ends with %s", last)
	}
	return nil
}

// curl returns the events that curl prints. After limit events it kills curl as a cut connection would end it; 0 is no
// limit, and then an HTTP error is an error.
func curl(ctx context.Context, limit int, args ...string) ([]event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := exec.CommandContext(ctx, "curl", append([]string{"--silent", "--show-error", "--no-buffer", "--fail-with-body", "--max-time", "80"}, args...)...)
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	events, rest := readEvents(stdout, limit)
	if limit > 0 && len(events) == limit {
		cancel()
		_ = command.Wait() // it was killed
		return events, nil
	}
	if err := command.Wait(); err != nil {
		return nil, fmt.Errorf("curl %s: %w: %s", strings.Join(args, " "), err, rest)
	}
	if len(events) == 0 {
		return nil, errors.New("no events: " + rest)
	}
	return events, nil
}

// readEvents reads until the end or until it has limit events, and returns lines that belong to none as rest.
func readEvents(r io.Reader, limit int) (events []event, rest string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	var current event
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			current.id = value
		case "data":
			current.data = value
		case "":
			if lines.Text() == "" && current.data != "" {
				events, current = append(events, current), event{}
				if len(events) == limit {
					return events, rest
				}
			}
		default:
			rest += lines.Text() + "\n"
		}
	}
	return events, rest
}
