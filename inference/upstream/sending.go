package upstream

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// sending is the body of a request on its way whose reply is a stream. The transport keeps the request until the reply has been
// read, which may take minutes, and can repeat it until the reply has begun: only so long is the body needed. Head and body leave in
// two writes. It is safe for concurrent use.
type sending struct {
	mu   sync.Mutex
	data []byte
}

// send makes body that of the request, until forget is called.
func send(r *http.Request, body []byte) *sending {
	s := &sending{data: body}
	if len(body) == 0 {
		return s
	}
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return s.reader(), nil }
	r.Body = s.reader()
	return s
}

// sendAtOnce makes body that of a request whose reply is one document. It leaves with the head in one write.
func sendAtOnce(r *http.Request, body []byte) {
	if len(body) == 0 {
		return
	}
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
}

// forget lets the body go. What is still being sent of it is sent to its end.
func (s *sending) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = nil
}

func (s *sending) reader() io.ReadCloser {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &sendingReader{}
	r.rest.Reset(s.data)
	return r
}

// sendingReader lets the body go when it is closed, which may be while it is read.
type sendingReader struct {
	mu   sync.Mutex
	rest bytes.Reader
}

func (r *sendingReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rest.Read(p)
}

func (r *sendingReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest.Reset(nil)
	return nil
}
