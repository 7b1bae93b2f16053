package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func askMock(t *testing.T, query, body string) (status int, contentType, answer string) {
	t.Helper()
	server := httptest.NewServer(newMock(dials{Tokens: 64}))
	t.Cleanup(server.Close)
	response, err := server.Client().Post(server.URL+"/v1/chat/completions"+query, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(data)
}

func TestMockStream(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, query, body string
		tokens            int
		usage             bool
	}{
		{"the flags' dials", "", `{"model":"m","stream":true}`, 64, false},
		{"the query's", "?tokens=3", `{"model":"m","stream":true}`, 3, false},
		{"the body's win", "?tokens=3&first_us=1", `{"model":"m","stream":true,"mock":{"tokens":2,"interval_us":1}}`, 2, false},
		{"usage on request", "?tokens=1", `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, 1, true},
	} {
		begin := time.Now()
		status, contentType, answer := askMock(t, test.query, test.body)
		if status != http.StatusOK || !strings.HasPrefix(contentType, "text/event-stream") {
			t.Fatalf("%s: status %d, %s", test.name, status, contentType)
		}
		events := scan([]byte(answer))
		if last := events[len(events)-1]; last != "[DONE]" {
			t.Errorf("%s: the last event is %q", test.name, last)
		}
		chunks := events[:len(events)-1]
		if test.usage {
			if last := chunks[len(chunks)-1]; !strings.Contains(last, `"usage":{`) {
				t.Errorf("%s: the last chunk is %s", test.name, last)
			}
			chunks = chunks[:len(chunks)-1]
		}
		if len(chunks) != test.tokens+1 {
			t.Errorf("%s: %d chunks, want %d tokens and the finish reason", test.name, len(chunks), test.tokens)
		}
		for _, chunk := range chunks {
			sent, ok := sentAt([]byte(chunk))
			if len(chunk) != chunkBytes || !json.Valid([]byte(chunk)) || !ok || sent.Before(begin.Add(-time.Second)) || sent.After(time.Now()) {
				t.Errorf("%s: chunk of %d bytes, stamped %v: %s", test.name, len(chunk), sent, chunk)
			}
		}
	}
}

func TestMockWhole(t *testing.T) {
	t.Parallel()
	status, contentType, answer := askMock(t, "", `{"model":"m","mock":{"tokens":5}}`)
	if status != http.StatusOK || contentType != "application/json" {
		t.Fatalf("status %d, %s", status, contentType)
	}
	if !json.Valid([]byte(answer)) || strings.Count(answer, " token") != 5 || !strings.Contains(answer, `"completion_tokens":5`) {
		t.Errorf("answer is %s", answer)
	}
}

func TestMockRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for name, request := range map[string][2]string{
		"body":  {"", "{"},
		"query": {"?tokens=x", `{"model":"m"}`},
		"model": {"", `{"stream":true,"model":"` + strings.Repeat("m", chunkBytes) + `"}`},
	} {
		if status, _, answer := askMock(t, request[0], request[1]); status != http.StatusBadRequest || !strings.Contains(answer, `"error"`) {
			t.Errorf("%s: status %d: %s", name, status, answer)
		}
	}
}

func TestSentAtRefusesWhatIsNoStamp(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", `{"sent":"1"}`, `{"sent":"123456789012345678x"}`, "[DONE]"} {
		if sent, ok := sentAt([]byte(data)); ok {
			t.Errorf("sentAt(%q) = %v", data, sent)
		}
	}
}
