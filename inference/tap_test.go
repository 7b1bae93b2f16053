package inference_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

// tap sees what passes through the server that no reader of the bus sees: what became of deliveries, and dead letters. It
// speaks the client protocol itself, as only the bus may know a client library.
type tap struct {
	t    testing.TB
	conn net.Conn

	mu    sync.Mutex
	verbs []verb
	dead  []letter
}

// verb is what a worker said about a delivery.
type verb struct {
	sequence  uint64
	delivered int
	word      string
}

// letter is a message to the DLQ.
type letter struct{ subject, header, body string }

func newTap(t testing.TB, server *natsd.Server) *tap {
	t.Helper()
	address, err := url.Parse(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, conn: conn}
	p.write("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB $JS.ACK.> 2\r\nSUB " + schemas.DLQAll + " 3\r\nPING\r\n")
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		p.read(ready)
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	wait(t, "tap", ready)
	return p
}

func (p *tap) write(s string) {
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Error(err)
	}
}

// publish sends a message to any subject.
func (p *tap) publish(subject, header, body string) {
	if header == "" {
		p.write(fmt.Sprintf("PUB %s %d\r\n%s\r\n", subject, len(body), body))
		return
	}
	header = "NATS/1.0\r\n" + header + "\r\n"
	p.write(fmt.Sprintf("HPUB %s %d %d\r\n%s%s\r\n", subject, len(header), len(header)+len(body), header, body))
}

func (p *tap) read(ready chan struct{}) {
	in := bufio.NewReader(p.conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "PING":
			_, _ = io.WriteString(p.conn, "PONG\r\n") // the test may have ended
		case "PONG":
			close(ready)
		case "MSG", "HMSG":
			size, _ := strconv.Atoi(words[len(words)-1])
			data := make([]byte, size+2)
			if _, err := io.ReadFull(in, data); err != nil {
				return
			}
			header := 0
			if words[0] == "HMSG" {
				header, _ = strconv.Atoi(words[len(words)-2])
			}
			p.note(words[1], words[2], string(data[:header]), string(data[header:size]))
		}
	}
}

func (p *tap) note(subject, subscription, header, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch subscription {
	case "2":
		if stream, sequence, delivered := ackSubject(subject); stream == schemas.StreamWork {
			p.verbs = append(p.verbs, verb{sequence, delivered, body})
		}
	case "3":
		p.dead = append(p.dead, letter{subject, header, body})
	}
}

// ackSubject reads $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.…
func ackSubject(subject string) (stream string, sequence uint64, delivered int) {
	words := strings.Split(subject, ".")
	if len(words) < 9 || words[1] != "ACK" {
		return "", 0, 0
	}
	if len(words) >= 11 {
		words = words[2:]
	}
	sequence, _ = strconv.ParseUint(words[5], 10, 64)
	delivered, _ = strconv.Atoi(words[4])
	return words[2], sequence, delivered
}

// delivered waits for a sign of life about the nth delivery of an item.
func (p *tap) delivered(sequence uint64, n int) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); p.deliveries(sequence) < n; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("item %d was not delivered %d times", sequence, n)
		}
	}
}

// deliveries is how many deliveries of an item were heard of.
func (p *tap) deliveries(sequence uint64) (most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.verbs {
		if v.sequence == sequence {
			most = max(most, v.delivered)
		}
	}
	return most
}

// words lists what was said about a delivery of an item but for its renewals.
func (p *tap) words(sequence uint64, delivered int) (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.verbs {
		if v.sequence == sequence && v.delivered == delivered && v.word != "+WPI" {
			all = append(all, v.word)
		}
	}
	return all
}

// renewals counts how often the lease of an item was renewed.
func (p *tap) renewals(sequence uint64) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.verbs {
		if v.sequence == sequence && v.word == "+WPI" {
			n++
		}
	}
	return n
}

// nak gives back the nth delivery of the only item of the test, as a router does for a worker that fell silent.
func (p *tap) nak(sequence uint64, n int) {
	p.publish(fmt.Sprintf("$JS.ACK.%s.%s.%d.%d.%d.%d.0", schemas.StreamWork, schemas.WorkConsumer("m"), n, sequence, n, time.Now().UnixNano()), "", "-NAK")
}

// letters waits for n dead letters and returns them.
func (p *tap) letters(n int) []letter {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		p.mu.Lock()
		dead := append([]letter(nil), p.dead...)
		p.mu.Unlock()
		if len(dead) >= n {
			return dead
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d dead letters, want %d", len(dead), n)
		}
	}
}
