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
	defaultBodyBytes  = schemas.MaxBodyBytes
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxKeyBytes       = 255             // of an Idempotency-Key
	maxReruns         = 32              // of an idempotency key whose runs failed before the first token
	cutLimit          = 5 * time.Second // for answers to end in an error once the drain limit has passed
	findableTimeout   = 5 * time.Second // for telling that a queued request exists
	overloadedRetry   = time.Second
	firstBuffer       = 64 << 10 // for a body, before any of it has come
)

// take claims a place among the requests being answered. It never waits: a full house is told so.
func (s *Ingest) take() (release func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	default:
		return nil, schemas.Errorf(schemas.CodeOverloaded, "%d requests are being answered already: try again in a second", cap(s.slots)).
			WithRetryAfter(overloadedRetry)
	}
}

// readBody reads the whole body within its limits of size and time.
func (s *Ingest) readBody(c *call) ([]byte, error) {
	if encoding := c.r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, schemas.Errorf(schemas.CodeUnsupported, "Content-Encoding %q is not accepted: send the body uncompressed", encoding)
	}
	if c.r.ContentLength > s.cfg.MaxBodyBytes {
		return nil, s.tooLarge()
	}
	// A deadline that stayed set would look like a caller that left.
	if c.control.SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout)) == nil {
		defer func() { _ = c.control.SetReadDeadline(time.Time{}) }()
	}
	body, err := readAll(http.MaxBytesReader(c.w, c.r.Body, s.cfg.MaxBodyBytes), c.r.ContentLength)
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, s.tooLarge()
	}
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "the request body ended early or came too slowly: send it whole").WithCause(err)
	}
	return body, nil
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
