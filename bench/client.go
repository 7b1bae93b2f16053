package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// answerTimeout bounds one answer, so that a target that hangs fails the run.
const answerTimeout = 30 * time.Second

// connection is an HTTP/1.1 client of one kept-alive connection. It exists because the load generator shares the cores with
// what it measures: it reads the socket on the caller's goroutine and allocates nothing per answer.
type connection struct {
	addr    string
	socket  net.Conn
	reader  *bufio.Reader
	request []byte
	lines   eventScanner
}

func dial(ctx context.Context, addr string) (*connection, error) {
	socket, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{addr: addr, socket: socket, reader: bufio.NewReaderSize(socket, 64<<10)}, nil
}

func (c *connection) Close() error { return c.socket.Close() }

// completionsPath is where every request goes.
const completionsPath = "/v1/chat/completions"

// post implements [caller].
func (c *connection) post(body []byte, event func(data []byte)) error {
	if err := c.socket.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	c.request = fmt.Appendf(c.request[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", completionsPath, c.addr, len(body))
	c.request = append(c.request, body...)
	if _, err := c.socket.Write(c.request); err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	status, length, err := c.readHead()
	if err != nil {
		return fmt.Errorf("read the answer's head: %w", err)
	}
	if status != 200 {
		return c.refused(status, length)
	}
	if length >= 0 {
		return c.readSized(length, event)
	}
	return c.readChunked(event)
}

// readHead returns the status and the content length, -1 for a chunked body.
func (c *connection) readHead() (status, length int, err error) {
	length = -2
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case status == 0:
			if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
				return 0, 0, fmt.Errorf("%q is not a status line", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, 0, err
			}
		case len(line) == 0:
			if length == -2 {
				return 0, 0, errors.New("the answer has neither a length nor chunks")
			}
			return status, length, nil
		default:
			name, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimSpace(value)
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length, err = strconv.Atoi(string(value)); err != nil {
					return 0, 0, err
				}
			}
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) && bytes.EqualFold(value, []byte("chunked")) {
				length = -1
			}
		}
	}
}

func (c *connection) readSized(length int, event func(data []byte)) error {
	if length <= c.reader.Size() {
		body, err := c.reader.Peek(length)
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		event(body)
		_, err = c.reader.Discard(length)
		return err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.reader, body); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	event(body)
	return nil
}

func (c *connection) readChunked(event func(data []byte)) error {
	c.lines.partial = c.lines.partial[:0]
	for {
		size, err := c.readChunkSize()
		if err != nil {
			return fmt.Errorf("read a chunk: %w", err)
		}
		for left := size; left > 0; {
			if _, err := c.reader.Peek(1); err != nil {
				return fmt.Errorf("read a chunk: %w", err)
			}
			piece, err := c.reader.Peek(min(left, c.reader.Buffered()))
			if err != nil {
				return fmt.Errorf("read a chunk: %w", err)
			}
			c.lines.feed(piece, event)
			if _, err := c.reader.Discard(len(piece)); err != nil {
				return err
			}
			left -= len(piece)
		}
		if _, err := c.reader.ReadSlice('\n'); err != nil {
			return fmt.Errorf("read the end of a chunk: %w", err)
		}
		if size == 0 {
			return nil
		}
	}
}

func (c *connection) readChunkSize() (int, error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	size := 0
	digits := bytes.TrimRight(line, "\r\n")
	for _, digit := range digits {
		switch {
		case digit >= '0' && digit <= '9':
			size = size<<4 | int(digit-'0')
		case digit >= 'a' && digit <= 'f':
			size = size<<4 | int(digit-'a'+10)
		case digit >= 'A' && digit <= 'F':
			size = size<<4 | int(digit-'A'+10)
		default:
			return 0, fmt.Errorf("%q is not the size of a chunk", digits)
		}
	}
	if len(digits) == 0 || len(digits) > 7 {
		return 0, fmt.Errorf("%q is not the size of a chunk", digits)
	}
	return size, nil
}

func (c *connection) refused(status, length int) error {
	body := make([]byte, max(min(length, 300), 0))
	if _, err := io.ReadFull(c.reader, body); err != nil {
		return fmt.Errorf("status %d, and its body cannot be read: %w", status, err)
	}
	return fmt.Errorf("status %d: %s", status, bytes.TrimSpace(body))
}
