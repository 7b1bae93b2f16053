package inference_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/faulty"
	"github.com/weir-llm/weir/schemas"
)

// scenario is a way in which model servers fail, and what the caller and the servers see of it.
type scenario struct {
	backends [][]faulty.Reply // of the model, each with its script
	fallback []standIn
	context  int // of the model
	retry    inference.Retry
	first    time.Duration // first-token timeout of the first backend; default that of all
	idle     time.Duration // of all backends
	total    time.Duration // running time
	only     string        // the dialect that can say this; default both
	lost     bool          // the caller gets what came before the failure

	text  string         // default: the whole answer
	code  schemas.Code   // instead of the end of an answer
	by    int            // which fallback answers, from 1; 0 = the model
	calls []int          // of the backends and then of the fallbacks
	gap   time.Duration  // from the first call of the first backend to its second, at least
	ends  string         // finish reason; default stop
	check func(*playing) // what else
}

// standIn is a fallback model with one backend.
type standIn struct {
	script  []faulty.Reply
	context int
}

// playing is a scenario in one dialect.
type playing struct {
	*pipe
	dialect faulty.Dialect
	servers []*faulty.Server
	result  *schemas.Result
	ids     []string // of the events
}

// generous is a bound that only a failure passes, however much else the machine has to do.
const generous = 45 * time.Second

func whole6() string { return strings.Join(faulty.Words(), "") }

func scripts(replies ...faulty.Reply) [][]faulty.Reply { return [][]faulty.Reply{replies} }

// scenarios are all of them, by name.
func scenarios() map[string]scenario {
	answers, down := faulty.Answers(), faulty.Fails(503)
	return map[string]scenario{
		"all is well":             {backends: scripts(answers), calls: []int{1}},
		"429 with Retry-After":    {backends: scripts(faulty.Limits(2), answers), calls: []int{2}, gap: 2 * time.Second},
		"429 without Retry-After": {backends: scripts(faulty.Limits(-1), answers), calls: []int{2}, gap: time.Second},
		"429 for longer than we wait": {
			backends: scripts(faulty.Limits(600)), code: schemas.CodeRateLimit, calls: []int{1},
			check: func(p *playing) {
				if e, err := schemas.DecodeError(p.result.Error); err != nil || e.RetryAfter != 10*time.Minute {
					p.t.Errorf("the caller is told %s, %v", p.result.Error, err)
				}
			},
		},
		"429, another backend":        {backends: [][]faulty.Reply{{faulty.Limits(600)}, {answers}}, calls: []int{1, 1}},
		"429, a fallback":             {backends: scripts(faulty.Limits(600)), fallback: []standIn{{script: []faulty.Reply{answers}}}, by: 1, calls: []int{1, 1}},
		"500 once":                    {backends: scripts(faulty.Fails(500), answers), calls: []int{2}, gap: 100 * time.Millisecond},
		"503 for ever":                {backends: scripts(down), code: schemas.CodeUpstreamError, calls: []int{3}, gap: 100 * time.Millisecond},
		"503 for ever, more backends": {backends: [][]faulty.Reply{{down}, {down}, {answers}}, calls: []int{1, 1, 1}},
		"503 for ever, a fallback":    {backends: scripts(down), fallback: []standIn{{script: []faulty.Reply{answers}}}, by: 1, calls: []int{3, 1}},
		"503 for ever, two fallbacks": {
			backends: scripts(down), fallback: []standIn{{script: []faulty.Reply{down}}, {script: []faulty.Reply{answers}}},
			retry: inference.Retry{MaxTries: 2}, by: 2, calls: []int{2, 2, 1},
		},
		"reset before headers":          {backends: scripts(faulty.Resets(), answers), calls: []int{2}, gap: 100 * time.Millisecond},
		"reset before headers for ever": {backends: scripts(faulty.Resets()), code: schemas.CodeUpstreamError, calls: []int{3}},
		"no answer at all":              {backends: scripts(faulty.Hangs()), first: 2 * time.Second, code: schemas.CodeUpstreamTimeout, calls: []int{1}, check: left},
		"no answer, another backend":    {backends: [][]faulty.Reply{{faulty.Hangs()}, {answers}}, first: 2 * time.Second, calls: []int{1, 1}, check: left},
		"no answer, a fallback":         {backends: scripts(faulty.Hangs()), fallback: []standIn{{script: []faulty.Reply{answers}}}, first: 2 * time.Second, by: 1, calls: []int{1, 1}, check: left},
		"slow first token": {backends: scripts(func(c *faulty.Call) {
			c.Pause(500 * time.Millisecond)
			answers(c)
		}), calls: []int{1}},
		"stream without an event": {backends: scripts(faulty.Cuts(0), answers), calls: []int{2}},
		"stream cut at two thirds, nobody can go on": {
			backends: scripts(faulty.Cuts(2. / 3)), code: schemas.CodeUpstreamInterrupted, lost: true,
		},
		"stream stalled, nobody can go on": {
			backends: scripts(faulty.Stalls(2. / 3)), idle: 2 * time.Second, code: schemas.CodeUpstreamTimeout, lost: true, check: left,
		},
		"malformed first event": {backends: scripts(func(c *faulty.Call) { c.Send(c.Dialect.Garbage) }, answers), calls: []int{2}},
		"no end mark": {only: "openai", backends: scripts(faulty.Says(func(d faulty.Dialect) []string {
			whole := d.Whole()
			return whole[:len(whole)-1]
		})), calls: []int{1}},
		"context length": {backends: scripts(faulty.TooLong()), context: 100, code: schemas.CodeContextLength, calls: []int{1}},
		"context length, a larger fallback": {
			backends: [][]faulty.Reply{{faulty.TooLong()}, {answers}}, context: 100,
			fallback: []standIn{{script: []faulty.Reply{answers}, context: 100}, {script: []faulty.Reply{answers}, context: 200}},
			by:       2, calls: []int{1, 0, 0, 1},
		},
		"context length, no larger fallback": {
			backends: scripts(faulty.TooLong()), context: 100, fallback: []standIn{{script: []faulty.Reply{answers}, context: 100}, {script: []faulty.Reply{answers}}},
			code: schemas.CodeContextLength, calls: []int{1, 0, 0},
		},
		"content filter": {only: "openai", backends: scripts(func(c *faulty.Call) {
			c.Refuse(faulty.Refusal{Status: 400, Body: `{"error":{"message":"canary","code":"content_filter"}}`})
		}), fallback: []standIn{{script: []faulty.Reply{answers}}}, code: schemas.CodeContentFilter, calls: []int{1, 0}},
		"filtered answer": {backends: scripts(faulty.Says(func(d faulty.Dialect) []string { return d.Answer(d.Filtered, faulty.Words()...) })),
			fallback: []standIn{{script: []faulty.Reply{answers}}}, ends: "content_filter", calls: []int{1, 0}},
		"no account": {backends: [][]faulty.Reply{{faulty.NoAccount()}, {answers}}, fallback: []standIn{{script: []faulty.Reply{answers}}}, code: schemas.CodeUpstreamAuth, calls: []int{1, 0, 0}},
		"a fallback that rejects prefill": {
			backends: scripts(down), fallback: []standIn{{script: []faulty.Reply{faulty.NoPrefill()}}, {script: []faulty.Reply{answers}}},
			by: 2, calls: []int{3, 1, 1},
		},
		"only a fallback that rejects prefill": {
			backends: scripts(down), fallback: []standIn{{script: []faulty.Reply{faulty.NoPrefill()}}}, code: schemas.CodeUpstreamError, calls: []int{3, 1},
		},
		"trickle, another backend": {
			backends: [][]faulty.Reply{{func(c *faulty.Call) { c.Trickle(100*time.Millisecond, c.Dialect.Whole()...) }}, {answers}},
			first:    2 * time.Second, calls: []int{1, 1}, check: left,
		},
		"trickle that is in time": {backends: scripts(func(c *faulty.Call) { c.Trickle(0, c.Dialect.Whole()...) }), calls: []int{1}},
		"end twice":               {backends: scripts(faulty.Doubles(0, 3)), calls: []int{1}},
		"beginning twice":         {only: "openai", backends: scripts(faulty.Doubles(-len(faulty.Words())-1, -len(faulty.Words()))), calls: []int{1}},
		"split UTF-8": {backends: scripts(func(c *faulty.Call) {
			c.Trickle(0, c.Dialect.Answer(c.Dialect.Stop, "é€", "𝄞", "…")...)
		}), text: "é€𝄞…", calls: []int{1}},
		"endless stream": {
			backends: scripts(func(c *faulty.Call) {
				pieces := c.Dialect.Whole()
				for c.Send(pieces[0], pieces[1]); c.Send(pieces[2]) && c.Pause(time.Millisecond); {
				}
			}),
			total: 3 * time.Second, code: schemas.CodeUpstreamTimeout, lost: true, calls: []int{1}, check: left,
		},
		"a chunk of 10 MB": {backends: scripts(func(c *faulty.Call) {
			c.Send(c.Dialect.Answer(c.Dialect.Stop, strings.Repeat("x", 10<<20))...)
		}), text: strings.Repeat("x", 10<<20), calls: []int{1}},
	}
}

// left waits until the first server has noticed that nobody listens any more.
func left(p *playing) {
	p.t.Helper()
	p.until("the server notices that its caller left", func() bool { return p.servers[0].Calls()[0].Left })
	if call := p.servers[0].Calls()[0]; call.Sent > 1<<20 {
		p.t.Errorf("the server sent %d bytes", call.Sent)
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, d := range []faulty.Dialect{faulty.OpenAI(), faulty.Anthropic(), faulty.Ollama()} {
				if s.only != "" && s.only != d.Name || s.ends == "content_filter" && d.Filtered == "" {
					continue
				}
				t.Run(d.Name, func(t *testing.T) {
					t.Parallel()
					s.play(t, d)
				})
			}
		})
	}
}

// play runs the scenario and checks what both sides see.
func (s scenario) play(t *testing.T, d faulty.Dialect) {
	p := &playing{pipe: setup(t), dialect: d}
	s.serve(p)
	began := time.Now()
	id := p.send("r1", sampled)
	got := p.read(id)
	took := time.Since(began)
	p.result, p.ids = p.ended(id), got.ids

	s.checkCaller(p, got, took)
	s.checkServers(p)
	if s.check != nil {
		s.check(p)
	}
}

func (s scenario) checkCaller(p *playing, got *reading, took time.Duration) {
	p.t.Helper()
	text := s.text
	if text == "" && s.code == "" {
		text = whole6()
	}
	if got.code() != s.code || !s.lost && got.text != text || s.lost && (got.text == "" || got.text == whole6()) {
		p.t.Fatalf("the caller got %.100q and %q after %v: %s", got.text, got.code(), took, got.terminal.Data)
	}
	if took > generous {
		p.t.Errorf("it took %v", took)
	}
	if strings.Contains(string(got.terminal.Data), "canary") || strings.Contains(string(p.result.Encode()), "canary") {
		p.t.Error("the server is quoted")
	}
	if s.code != "" {
		return
	}
	if s.ends == "" {
		s.ends = "stop"
	}
	if !slices.Equal(p.result.FinishReasons, []string{s.ends}) {
		p.t.Errorf("finish reasons %q", p.result.FinishReasons)
	}
	answered := ""
	if s.by > 0 {
		answered = standInName(s.by - 1)
	}
	last := p.result.Tries[len(p.result.Tries)-1]
	if last.Outcome != "" || last.Model != answered {
		p.t.Errorf("the answer is of %+v", last)
	}
	if u := p.result.Usage; u == nil || u.TotalTokens != faulty.PromptTokens+faulty.CompletionTokens {
		p.t.Errorf("usage %+v", u)
	}
}

func (s scenario) checkServers(p *playing) {
	p.t.Helper()
	if s.calls == nil {
		return
	}
	calls := make([]int, len(p.servers))
	total := 0
	for i, server := range p.servers {
		calls[i] = len(server.Calls())
		total += calls[i]
	}
	if !slices.Equal(calls, s.calls) {
		p.t.Errorf("calls %v, want %v", calls, s.calls)
	}
	if len(p.result.Tries) != total {
		p.t.Errorf("the result lists %d tries of %d: %+v", len(p.result.Tries), total, p.result.Tries)
	}
	for _, try := range p.result.Tries {
		if try.Outcome != "" && try.Cause == "" {
			p.t.Errorf("try %+v has no cause", try)
		}
	}
	if first := p.servers[0].Calls(); s.gap > 0 && first[1].Began.Sub(first[0].Began) < s.gap {
		p.t.Errorf("the second call came after %v, want at least %v", first[1].Began.Sub(first[0].Began), s.gap)
	}
}

func standInName(i int) string { return fmt.Sprintf("other-%d", i+1) }

// serve starts the servers and a worker that calls them.
func (s scenario) serve(p *playing) {
	p.t.Helper()
	timeouts := inference.Timeouts{FirstToken: generous, Idle: generous, Total: 2 * time.Minute}
	if s.idle > 0 {
		timeouts.Idle = s.idle
	}
	slot := func(name string, script []faulty.Reply, timeouts inference.Timeouts) inference.Slot {
		server := faulty.New(p.t, p.dialect, script...)
		p.servers = append(p.servers, server)
		return inference.Slot{Backend: backendOf(p.t, name, server, timeouts), MaxInFlight: 4}
	}
	m := inference.Model{Retry: s.retry, Context: s.context, Total: s.total}
	for i, script := range s.backends {
		own := timeouts
		if i == 0 && s.first > 0 {
			own.FirstToken = s.first
		}
		m.Backends = append(m.Backends, slot(fmt.Sprintf("b%d", i+1), script, own))
	}
	models := map[string]inference.Model{}
	for i, other := range s.fallback {
		name := standInName(i)
		models[name] = inference.Model{Backends: []inference.Slot{slot("b", other.script, timeouts)}, Context: other.context}
		m.Fallback = append(m.Fallback, name)
	}
	models["m"] = m
	p.worker("w1", nil, func(c *inference.Config) { c.Models = models })
}

// backendOf is a backend that calls a server in its dialect.
func backendOf(t testing.TB, name string, server *faulty.Server, timeouts inference.Timeouts) (b interface {
	inference.Backend
	io.Closer
}) {
	t.Helper()
	var err error
	switch server.Dialect.Name {
	case "anthropic":
		b, err = anthropic.New(anthropic.Config{Name: name, URL: server.URL + "/v1", Timeouts: timeouts})
	case "ollama":
		b, err = ollama.New(ollama.Config{Name: name, URL: server.URL, Timeouts: timeouts})
	default:
		b, err = openai.New(openai.Config{Name: name, URL: server.URL + "/v1", Timeouts: timeouts})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}
