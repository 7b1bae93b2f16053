package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// A body is sent whole, as often as the transport asks for it, until it is forgotten; and what is being sent stays whole.
func TestSending(t *testing.T) {
	t.Parallel()
	const text = "the body of a request"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://h", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := send(request, []byte(text))
	if request.ContentLength != int64(len(text)) {
		t.Errorf("its length is %d", request.ContentLength)
	}
	again, _ := request.GetBody()
	begun := make([]byte, 3)
	_, _ = io.ReadFull(again, begun)
	s.forget()
	for _, body := range []io.Reader{request.Body, io.MultiReader(strings.NewReader(string(begun)), again)} {
		if got, err := io.ReadAll(body); string(got) != text || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	late, _ := request.GetBody()
	if got, _ := io.ReadAll(late); len(got) > 0 {
		t.Errorf("once forgotten it is still there: %q", got)
	}
	_ = again.Close()
	if n, err := again.Read(begun); n > 0 || err == nil {
		t.Errorf("a closed body reads %d bytes", n)
	}
	if empty, _ := http.NewRequest(http.MethodGet, "http://h", nil); send(empty, nil) == nil || empty.Body != nil || empty.GetBody != nil {
		t.Error("a request without a body has got one")
	}
}
