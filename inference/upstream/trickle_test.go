package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// trickle is a reply whose body comes one byte a second.
type trickle struct {
	text string
	end  <-chan struct{} // the caller left
	sent int
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.sent == len(b.text) {
		return 0, io.EOF
	}
	select {
	case <-b.end:
		return 0, io.ErrUnexpectedEOF
	case <-time.After(time.Second):
	}
	p[0] = b.text[b.sent]
	b.sent++
	return 1, nil
}

func (*trickle) Close() error { return nil }

// trickling answers every call with a trickle, without a network, so that its time can be simulated.
type trickling struct {
	text  string
	reply *trickle
}

func (s *trickling) RoundTrip(r *http.Request) (*http.Response, error) {
	s.reply = &trickle{text: s.text, end: r.Context().Done()}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: s.reply, Request: r}, nil
}

// words are events of one letter, which the last of them ends.
type words struct {
	said string
	last string
}

func (w *words) Event(e *openai.Event) (counts, end bool, err error) {
	w.said += string(e.Data)
	return true, w.Whole(), nil
}

func (w *words) Whole() bool { return strings.HasSuffix(w.said, w.last) }

func (w *words) Ended() error {
	if w.Whole() {
		return nil
	}
	return Interrupted("the last word")
}

func (w *words) NoStream([]byte) error { return NotAStream() }

// TestTrickleOfAByteASecond has a server that sends one byte a second, for as long as it takes, in simulated time. Events
// that are each in time make an answer, however long it takes in all; a first event that takes longer than the first-token
// timeout, or one that takes longer than the idle timeout, ends the call on the second, and the server sees the caller
// leave.
func TestTrickleOfAByteASecond(t *testing.T) {
	t.Parallel()
	event := func(bytes int) string { return "data: " + strings.Repeat("x", bytes-len("data: \n\n")) + "\n\n" }
	for name, c := range map[string]struct {
		text  string
		code  schemas.Code
		sent  int // bytes
		after time.Duration
	}{
		"in time":               {strings.Repeat(event(20), 9) + "data: .\n\n", "", 189, 189 * time.Second},
		"at the limit":          {event(58) + event(58) + "data: .\n\n", "", 125, 125 * time.Second},
		"the first is too late": {event(100) + "data: .\n\n", schemas.CodeUpstreamTimeout, 60, time.Minute},
		"a later one is":        {event(20) + event(100) + "data: .\n\n", schemas.CodeUpstreamTimeout, 79, 79 * time.Second},
		"all is in time but the whole": {
			strings.Repeat(event(50), 30), schemas.CodeUpstreamTimeout, 900, 15 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, err := NewClient(Config{Name: "b", URL: "http://server.test"})
				if err != nil {
					t.Fatal(err)
				}
				server := &trickling{text: c.text}
				client.transport.RegisterProtocol("http", server)
				began := time.Now()
				call := client.NewCall(t.Context(), &inference.GenerateRequest{Stream: true}, func(inference.Event, error) bool { return true })
				defer call.Close()
				reply, err := call.Send(http.MethodPost, "/chat", nil, nil)
				if err == nil {
					err = call.Stream(reply.Body, &words{last: "."})
				}
				code := schemas.Code("")
				if err != nil {
					code = schemas.AsError(err).Code
				}
				if took := time.Since(began); code != c.code || took < c.after-2*time.Second || took > c.after+2*time.Second {
					t.Errorf("%v after %v, want %q after %v", err, took, c.code, c.after)
				}
				if sent := server.reply.sent; sent < c.sent-2 || sent > c.sent+2 {
					t.Errorf("the server sent %d bytes, want %d", sent, c.sent)
				}
			})
		})
	}
}
