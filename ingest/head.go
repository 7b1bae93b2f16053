package ingest

import (
	"net/http"

	"github.com/weir-llm/weir/schemas"
)

// refusal is an error with a status of its own, other than that of its code.
type refusal struct {
	error  *schemas.Error
	status int
}

func refuse(status int, code schemas.Code, format string, args ...any) error {
	return refusal{schemas.Errorf(code, format, args...), status}
}

func (r refusal) Error() string { return r.error.Error() }
func (r refusal) Unwrap() error { return r.error }

// checkHead bounds what a caller may send before its body. net/http itself bounds it too, at twice the size and with an
// answer that is no JSON, so that whatever an SDK sends by mistake is answered here.
func checkHead(r *http.Request) error {
	if n := len(r.RequestURI); n > maxURLBytes {
		return refuse(http.StatusRequestURITooLong, schemas.CodeRequestTooLarge, "the URL has %d bytes: at most %d are allowed; send parameters in the body", n, maxURLBytes)
	}
	headers, size := 1, len("Host: \r\n")+len(r.Host)
	for name, values := range r.Header {
		headers += len(values)
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	switch {
	case headers > maxHeaders:
		return refuse(http.StatusRequestHeaderFieldsTooLarge, schemas.CodeRequestTooLarge, "the request has %d headers: at most %d are allowed", headers, maxHeaders)
	case size > maxHeaderBytes:
		return refuse(http.StatusRequestHeaderFieldsTooLarge, schemas.CodeRequestTooLarge, "the request's headers have %d bytes: at most %d are allowed; send what is long in the body", size, maxHeaderBytes)
	}
	return nil
}
