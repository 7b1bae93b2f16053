package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

// load is what the generator asks of a target. Each client has one connection and one request under way, so a closed loop
// with Interval 0 measures throughput, and with an interval it is a number of concurrent streams at that pace.
type load struct {
	Clients  int
	Raw      bool // by the leanest client there is, instead of one that works as an SDK does
	Stream   bool
	Tokens   int           // per answer
	Interval time.Duration // between an answer's tokens
	Warmup   time.Duration // before counting starts
	Window   time.Duration // of counting
}

// tally is what was counted.
type tally struct {
	Answers    int // in the window
	Tokens     int // in the window
	AllTokens  int // from the first request to the last answer
	FirstToken []time.Duration
	ChunkDelay []time.Duration // from the mock's socket to ours
	Failed     []error         // one per client that gave up
}

func (t *tally) add(other *tally) {
	t.Answers += other.Answers
	t.Tokens += other.Tokens
	t.AllTokens += other.AllTokens
	t.FirstToken = append(t.FirstToken, other.FirstToken...)
	t.ChunkDelay = append(t.ChunkDelay, other.ChunkDelay...)
	t.Failed = append(t.Failed, other.Failed...)
}

// run loads the server at addr. When the window closes, each client finishes its answer, so that nothing is cut and a round
// leaves nothing behind for the next.
func (l load) run(ctx context.Context, addr string) (*tally, error) {
	begin := time.Now()
	window := span{from: begin.Add(l.Warmup), to: begin.Add(l.Warmup + l.Window)}
	clients := make([]*client, l.Clients)
	var running sync.WaitGroup
	for i := range clients {
		clients[i] = &client{load: l, addr: addr, window: window}
		running.Go(func() {
			// Phases spread over one interval, and first answers of every length, make streams that neither tick nor start together.
			if waitUntil(ctx, begin.Add(l.Interval*time.Duration(i)/time.Duration(l.Clients))) {
				clients[i].run(ctx, l.Tokens*(i+1)/l.Clients)
			}
		})
	}
	running.Wait()
	sum := &tally{}
	for _, c := range clients {
		sum.add(&c.tally)
	}
	return sum, errors.Join(ctx.Err(), firstFailure(sum.Failed))
}

func firstFailure(failed []error) error {
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d clients failed, the first with: %w", len(failed), failed[0])
}

type span struct{ from, to time.Time }

func (s span) holds(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

// client is one of a load's clients; run's goroutine owns it until run returns.
type client struct {
	load
	addr   string
	window span
	tally  tally

	sent    time.Time // the current request
	tokens  int       // of the current answer
	done    bool      // the current answer ended as it should
	failure string    // the error that ended the current answer in-band
}

func (c *client) run(ctx context.Context, firstTokens int) {
	conn, err := c.connect(ctx)
	if err != nil {
		c.tally.Failed = append(c.tally.Failed, err)
		return
	}
	defer func() { _ = conn.Close() }()
	tokens := c.Tokens
	if c.Interval > 0 {
		tokens = max(firstTokens, 1)
	}
	request := c.request(tokens)
	for ctx.Err() == nil && time.Now().Before(c.window.to) {
		if err := c.ask(conn, request, tokens); err != nil {
			c.tally.Failed = append(c.tally.Failed, err)
			return
		}
		if tokens != c.Tokens {
			tokens = c.Tokens
			request = c.request(tokens)
		}
	}
}

func (c *client) connect(ctx context.Context) (caller, error) {
	if c.Raw {
		return dial(ctx, c.addr)
	}
	return newSDKCaller(c.addr), nil
}

func (c *client) request(tokens int) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body, err := json.Marshal(struct {
		Model    string    `json:"model"`
		Messages []message `json:"messages"`
		Stream   bool      `json:"stream"`
		Mock     dials     `json:"mock"`
	}{benchModel, []message{{"user", "Count to a number."}}, c.Stream, dials{Tokens: tokens, IntervalUS: c.Interval.Microseconds()}})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return body
}

// ask sends one request and counts its answer; a short answer is an error.
func (c *client) ask(conn caller, request []byte, tokens int) error {
	c.tokens, c.done, c.failure = 0, false, ""
	event := c.streamed
	if !c.Stream {
		event = c.whole
	}
	c.sent = time.Now()
	if err := conn.post(request, event); err != nil {
		return err
	}
	if !c.done || c.tokens != tokens {
		return fmt.Errorf("the answer has %d of %d tokens, ended properly: %t %s", c.tokens, tokens, c.done, c.failure)
	}
	if c.window.holds(time.Now()) {
		c.tally.Answers++
	}
	return nil
}

func (c *client) streamed(data []byte) {
	now := time.Now()
	switch {
	case bytes.Equal(data, []byte("[DONE]")):
		c.done = true
		return
	case bytes.HasPrefix(data, []byte(`{"error"`)):
		c.failure = string(data)
		return
	}
	sent, ok := sentAt(data)
	if !ok || bytes.Contains(data, []byte(`"delta":{}`)) {
		return // the finish reason, or usage
	}
	c.tokens++
	c.tally.AllTokens++
	if !c.window.holds(now) {
		return
	}
	c.tally.Tokens++
	c.tally.ChunkDelay = append(c.tally.ChunkDelay, now.Sub(sent))
	if c.tokens == 1 {
		c.tally.FirstToken = append(c.tally.FirstToken, now.Sub(c.sent))
	}
}

func (c *client) whole(data []byte) {
	c.tokens = bytes.Count(data, []byte(" token"))
	c.done = bytes.Contains(data, []byte(`"finish_reason":"stop"`))
	c.tally.AllTokens += c.tokens
	if c.window.holds(time.Now()) {
		c.tally.Tokens += c.tokens
	}
}

// loadCommand runs one load against one address and prints what it counted.
func loadCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("load", stderr)
	addr := flags.String("addr", "127.0.0.1:8080", "address of the server")
	procs := flags.Int("procs", runtime.NumCPU(), "threads that may run at once")
	l := load{}
	flags.IntVar(&l.Clients, "clients", 32, "concurrent clients, each with one request under way")
	flags.BoolVar(&l.Raw, "raw", false, "use the leanest client there is, which decodes nothing, instead of one that works as an SDK does")
	flags.BoolVar(&l.Stream, "stream", true, "streamed answers")
	flags.IntVar(&l.Tokens, "tokens", 64, "tokens per answer")
	flags.DurationVar(&l.Interval, "interval", 0, "time between tokens; 0 is as fast as possible")
	flags.DurationVar(&l.Warmup, "warmup", time.Second, "time before counting starts")
	flags.DurationVar(&l.Window, "window", 10*time.Second, "time of counting")
	if err := flags.Parse(args); err != nil {
		return err
	}
	beLight(*procs)
	t, err := l.run(ctx, *addr)
	fmt.Fprintf(stdout, "answers/s %.0f, tokens/s %.0f, first token ms p50 %.2f p99 %.2f, chunk delay ms p50 %.2f p99 %.2f\n",
		float64(t.Answers)/l.Window.Seconds(), float64(t.Tokens)/l.Window.Seconds(),
		milliseconds(percentile(t.FirstToken, 50)), milliseconds(percentile(t.FirstToken, 99)),
		milliseconds(percentile(t.ChunkDelay, 50)), milliseconds(percentile(t.ChunkDelay, 99)))
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
