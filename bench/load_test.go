package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func runLoad(t *testing.T, handler http.Handler, l load) (*tally, error) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return l.run(t.Context(), strings.TrimPrefix(server.URL, "http://"))
}

func TestLoadCountsWholeAnswers(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]load{
		"closed loop": {Clients: 3, Stream: true, Tokens: 5, Window: time.Second},
		"unary":       {Clients: 2, Tokens: 5, Window: time.Second},
		"paced":       {Clients: 4, Stream: true, Tokens: 5, Interval: 2 * time.Millisecond, Window: time.Second},
	} {
		counted, err := runLoad(t, newMock(dials{}), l)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if counted.Answers == 0 || counted.Tokens < counted.Answers || counted.AllTokens < counted.Tokens {
			t.Errorf("%s: %d answers, %d tokens, %d in all", name, counted.Answers, counted.Tokens, counted.AllTokens)
		}
		if l.Stream && (len(counted.ChunkDelay) != counted.Tokens || percentile(counted.ChunkDelay, 50) <= 0 || len(counted.FirstToken) == 0) {
			t.Errorf("%s: %d delays for %d tokens, median %v, %d first tokens", name, len(counted.ChunkDelay), counted.Tokens,
				percentile(counted.ChunkDelay, 50), len(counted.FirstToken))
		}
		if perSecond := float64(counted.Tokens) / l.Window.Seconds(); l.Interval > 0 && perSecond > 1.5*float64(l.Clients)/l.Interval.Seconds() {
			t.Errorf("%s: %.0f tokens/s is faster than the pace", name, perSecond)
		}
	}
}

func TestLoadReportsAnAnswerThatIsNotWhole(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]func(w http.ResponseWriter){
		"status 429: {\"error\":1}": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"error":1}`)
		},
		"0 of 2 tokens": func(w http.ResponseWriter) {
			fmt.Fprint(w, "data: [DONE]\n\n")
			_ = http.NewResponseController(w).Flush()
		},
		`{"error":{"code":"upstream_error"}}`: func(w http.ResponseWriter) {
			_ = http.NewResponseController(w).Flush()
			fmt.Fprint(w, "data: {\"error\":{\"code\":\"upstream_error\"}}\n\n")
		},
	} {
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) })
		_, err := runLoad(t, handler, load{Clients: 1, Stream: true, Tokens: 2, Window: time.Minute})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %s", err, want)
		}
	}
}

func TestLoadFindsNobodyThere(t *testing.T) {
	t.Parallel()
	if _, err := (load{Clients: 2, Tokens: 1, Window: time.Second}).run(t.Context(), "127.0.0.1:1"); err == nil {
		t.Error("no error")
	}
}
