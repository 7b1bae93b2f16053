package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/weir-llm/weir/schemas"
)

const (
	defaultBodyBytes = schemas.MaxBodyBytes
	maxHeaderBytes   = 32 << 10
	maxHeaders       = 128
	maxURLBytes      = 8 << 10
	maxKeyBytes      = 255             // of an Idempotency-Key
	maxReruns        = 32              // of an idempotency key whose runs failed before the first token
	cutLimit         = 5 * time.Second // for answers to end in an error once the drain limit has passed
	findableTimeout  = 5 * time.Second // for telling that a queued request exists
	overloadedRetry  = time.Second
	firstBuffer      = 64 << 10 // for a body, before any of it has come
)

// take claims a place among the requests being answered.
func (s *Ingest) take(c *call) (release func(), err error) {
	c.addr = s.proxies.caller(c.r)
	if err := s.places.take(c.key.ID, c.addr); err != nil {
		return nil, err
	}
	return func() { s.places.give(c.key.ID, c.addr) }, nil
}

// readBody reads the whole body within its limits of size and time.
func (s *Ingest) readBody(c *call) ([]byte, error) {
	for _, encoding := range c.r.Header["Content-Encoding"] {
		if encoding != "" && encoding != "identity" {
			return nil, refuse(http.StatusUnsupportedMediaType, schemas.CodeUnsupported, "Content-Encoding %.100q is not accepted: send the body uncompressed", encoding)
		}
	}
	if c.r.ContentLength > s.cfg.MaxBodyBytes {
		return nil, s.tooLarge()
	}
	reader := weighed{Reader: http.MaxBytesReader(c.w, c.r.Body, s.cfg.MaxBodyBytes), x: &c.exchange, free: freeBody}
	body, err := readAll(&reader, c.r.ContentLength)
	if full, ok := errors.AsType[*schemas.Error](err); ok {
		return nil, full
	}
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, s.tooLarge()
	}
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "the request body ended early or came too slowly: send it whole").WithCause(err)
	}
	_ = c.control.SetReadDeadline(time.Time{}) // one that stayed set would look like a caller that left
	return body, nil
}

// bodiesInTime gives every body its time, also one that no handler reads: net/http reads what is left of it before it
// sends the answer, and would wait for ever.
func (s *Ingest) bodiesInTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout)) // it fails with the connection
		}
		next.ServeHTTP(w, r)
	})
}

// readAll reads r into a buffer that begins at the announced size, but not beyond what the caller has yet to prove.
func readAll(r io.Reader, announced int64) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(announced, 0), firstBuffer)) + bytes.MinRead)
	_, err := body.ReadFrom(r)
	return body.Bytes(), err
}

func (s *Ingest) tooLarge() error {
	return schemas.Errorf(schemas.CodeRequestTooLarge, "the request body is larger than %d bytes: send less, or reference images by URL", s.cfg.MaxBodyBytes)
}

// checkAddr reports whether only this machine can reach an address, and refuses one that others can while there is no key.
func checkAddr(addr string, open bool) (local bool, err error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return false, fmt.Errorf("HTTP address %q: %w; write it as host:port", addr, err)
	}
	local = tcp.IP != nil && tcp.IP.IsLoopback()
	if open && !local {
		return false, fmt.Errorf("refusing to listen on %s without API keys: everyone who can reach it could use it; create a key with weir keys create, configure one under `keys`, or listen on 127.0.0.1", addr)
	}
	return local, nil
}

// checkCaller refuses what a web page may have sent through the browser of someone on this machine: the door has no key
// to ask for, so a foreign page must not get in by a name that it had rebound to a loopback address, nor by a plain form.
func checkCaller(r *http.Request, origin *http.CrossOriginProtection) error {
	if !loopbackHost(r.Host) {
		return schemas.Errorf(schemas.CodeInvalidValue, "Host %q is not this machine: without API keys only localhost and loopback addresses are served; use http://127.0.0.1", r.Host)
	}
	if err := origin.Check(r); err != nil {
		return schemas.Errorf(schemas.CodeInvalidValue, "a page of another web origin may not call while no API key exists: name its origin under ingest.cors.origins, or create a key with weir keys create and send it").WithCause(err)
	}
	return nil
}

func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
