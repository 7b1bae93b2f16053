package inference_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// sampler is a model server over gRPC that samples, so that no two answers are the same: its n-th says "n0 n1 … n7 ". It goes
// on from its tokens or its text, and holds what it is given against what it said.
type sampler struct {
	pb.UnimplementedBackendServer
	*rpctest.Server
	dials []samplerDials // of the calls; the last is used again

	mu      sync.Mutex
	calls   []*pb.GenerateRequest
	answers int
	faults  []string
}

type samplerDials struct {
	cut     int  // fail after that many tokens; 0 = never
	stall   int  // stay silent after that many tokens; 0 = never
	refuse  bool // to go on
	forget  bool // begin again instead of going on, as servers do that do not know these fields
	several bool // send tokens two by two
	apart   bool // tell tokens that do not belong to the chunks one by one
}

const samplerTokens = 8

func newSampler(t testing.TB, dials ...samplerDials) *sampler {
	s := &sampler{dials: dials}
	s.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, s) })
	return s
}

func (s *sampler) backend(t testing.TB, name string, how inference.Continuation) inference.Backend {
	t.Helper()
	b, err := backendv1.New(backendv1.Config{Name: name, URL: "grpc://" + s.Address, Continue: how})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func (s *sampler) asked() []*pb.GenerateRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func sampledToken(n, i int) (text string, id uint32) {
	return fmt.Sprintf("%c%d ", 'a'+n-1, i), uint32(1000*n + i)
}

// sampledText is what the n-th answer says in that many tokens.
func sampledText(n, tokens int) (all string) {
	for i := range tokens {
		text, _ := sampledToken(n, i)
		all += text
	}
	return all
}

// samplerPrompt is the prompt of a request in tokens.
func samplerPrompt(r *pb.GenerateRequest) (ids []uint32) {
	for _, b := range []byte(gjson.GetBytes(r.GetBodyJson(), "messages.0.content").Str) {
		ids = append(ids, uint32(b))
	}
	return ids
}

// begin finds out which answer is given, from which of its tokens on.
func (s *sampler) begin(r *pb.GenerateRequest) (d samplerDials, n, from int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d = s.dials[min(len(s.calls), len(s.dials)-1)]
	s.calls = append(s.calls, r)
	ids, text := r.GetResumeTokenIds(), r.GetResumeText()
	switch {
	case len(ids) == 0 && text == "" || d.forget:
		s.answers++
		return d, s.answers, 0, nil
	case d.refuse:
		return d, 0, 0, status.Error(codes.InvalidArgument, "this server cannot go on")
	case text != "":
		for n = range 26 {
			for from = range samplerTokens + 1 {
				if strings.TrimSpace(sampledText(n+1, from)) == text {
					return d, n + 1, from, nil
				}
			}
		}
	default:
		n, from = int(ids[0]/1000), len(ids)
		said := slices.ContainsFunc(ids, func(id uint32) bool { return int(id)/1000 != n || int(id)%1000 != slices.Index(ids, id) })
		if !said && slices.Equal(r.GetPromptTokenIds(), samplerPrompt(r)) {
			return d, n, from, nil
		}
	}
	s.faults = append(s.faults, fmt.Sprintf("given %v and %v, %q", r.GetPromptTokenIds(), ids, text))
	return d, 0, 0, status.Error(codes.InvalidArgument, "this is not what was said")
}

func (s *sampler) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	d, n, from, err := s.begin(r)
	if err != nil {
		return err
	}
	resumed := from > 0
	first := &pb.GenerateEvent{ChunkJson: [][]byte{sampledChunk(n, `"delta":{"role":"assistant","content":""},"finish_reason":null`)}, Resumed: resumed}
	if r.GetTellTokenIds() {
		first.PromptTokenIds, first.TokenIds = samplerPrompt(r), []*pb.Tokens{{}}
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	limit := samplerTokens
	if most := gjson.GetBytes(r.GetBodyJson(), "max_tokens"); most.Exists() {
		limit = min(limit, from+int(most.Int()))
	}
	said := 0
	for i := from; i < limit; {
		switch {
		case d.cut > 0 && said == d.cut:
			return status.Error(codes.Unavailable, "going down")
		case d.stall > 0 && said == d.stall:
			return s.Wait(stream.Context())
		}
		m := &pb.GenerateEvent{}
		for range 2 {
			text, id := sampledToken(n, i)
			if said == 0 && r.GetResumeText() != "" && resumed {
				text = " " + text // which it was given without
			}
			m.ChunkJson = append(m.ChunkJson, sampledChunk(n, fmt.Sprintf(`"delta":{"content":%q},"finish_reason":null`, text)))
			if r.GetTellTokenIds() {
				m.TokenIds = append(m.TokenIds, &pb.Tokens{Id: []uint32{id}})
			}
			said++
			if i++; !d.several || i == limit {
				break
			}
		}
		if d.apart && len(m.TokenIds) > 1 {
			m.TokenIds = []*pb.Tokens{{Id: append(m.TokenIds[0].Id, m.TokenIds[1].Id...)}}
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	finish := "stop"
	if limit < samplerTokens {
		finish = "length"
	}
	return stream.Send(&pb.GenerateEvent{
		ChunkJson: [][]byte{sampledChunk(n, fmt.Sprintf(`"delta":{},"finish_reason":%q`, finish))},
		Final:     &pb.Final{PromptTokens: uint32(len(samplerPrompt(r)) + from), CompletionTokens: uint32(said)},
	})
}

func sampledChunk(n int, choice string) []byte {
	return []byte(strings.Replace(openaitest.Chunk(choice), "chatcmpl-1", fmt.Sprint("run-", n), 1))
}

// A server of llm.backend.v1 that fails in the middle of a sampled answer: the same worker goes on.
func TestAnswerOverGRPCGoesOn(t *testing.T) {
	t.Parallel()
	cutShort := schemas.CodeUpstreamInterrupted
	for name, c := range map[string]struct {
		how    inference.Continuation
		body   string
		dials  []samplerDials
		text   string
		code   schemas.Code
		modes  string
		usage  string
		finish string
		given  string // to the last call: the tokens and the text
	}{
		"by tokens": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 3}, {}},
			text: sampledText(1, 8), modes: "fresh continue", usage: "5 8", finish: "stop", given: `[1000 1001 1002] ""`,
		},
		"by tokens, two in a message": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 4, several: true}, {several: true}},
			text: sampledText(1, 8), modes: "fresh continue", usage: "5 8", finish: "stop", given: `[1000 1001 1002 1003] ""`,
		},
		"by tokens, twice": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 3}, {cut: 2}, {}},
			text: sampledText(1, 8), modes: "fresh continue continue", usage: "5 8", finish: "stop", given: `[1000 1001 1002 1003 1004] ""`,
		},
		"by tokens, up to a limit": {
			how: tokens, body: hello(`,"max_tokens":5`), dials: []samplerDials{{cut: 3}, {}},
			text: sampledText(1, 5), modes: "fresh continue", usage: "5 5", finish: "length", given: `[1000 1001 1002] ""`,
		},
		"by text, as it tells tokens that belong to no chunk": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 4, several: true, apart: true}, {}},
			text: sampledText(1, 8), modes: "fresh continue", usage: "5 8", finish: "stop", given: `[] "a0 a1 a2 a3"`,
		},
		"by text": {
			how: text, body: hello(""), dials: []samplerDials{{cut: 3}, {}},
			text: sampledText(1, 8), modes: "fresh continue", usage: "5 8", finish: "stop", given: `[] "a0 a1 a2"`,
		},
		"by text, as tokens are refused": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 3}, {refuse: true}, {}},
			text: sampledText(1, 8), modes: "fresh continue continue", usage: "5 8", finish: "stop", given: `[] "a0 a1 a2"`,
		},
		"by a server that begins again": {
			how: tokens, body: hello(""), dials: []samplerDials{{cut: 3}, {forget: true}},
			text: sampledText(1, 3), code: cutShort, modes: "fresh continue continue", given: `[] "a0 a1 a2"`,
		},
		"with tools": {
			how: tokens, body: hello(`,"tools":[{"type":"function","function":{"name":"f"}}]`), dials: []samplerDials{{cut: 3}, {}},
			text: sampledText(1, 3), code: cutShort, modes: "fresh", given: `[] ""`,
		},
		"by a server that cannot": {
			how: none, body: hello(""), dials: []samplerDials{{cut: 3}, {}},
			text: sampledText(1, 3), code: cutShort, modes: "fresh", given: `[] ""`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			s := newSampler(t, c.dials...)
			p.worker("w1", s.backend(t, "own", c.how))
			request := work("r1", 1, c.body)
			live := p.reader(request.Identity)
			p.dispatch(request)
			got := live()
			if got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q, want %q and %q", got.text, got.code(), c.text, c.code)
			}
			for _, id := range got.ids {
				if id != got.ids[0] {
					t.Errorf("the id of the answer changed from %s to %s", got.ids[0], id)
				}
			}
			r, calls := p.ended(request.Identity), s.asked()
			if got := modes(p.chain(request.Identity)); got != c.modes || len(s.faults) > 0 {
				t.Errorf("modes %s, want %s; faults %v", got, c.modes, s.faults)
			}
			last := calls[len(calls)-1]
			if got := fmt.Sprintf("%v %q", last.GetResumeTokenIds(), last.GetResumeText()); got != c.given {
				t.Errorf("the last call was given %s, want %s", got, c.given)
			}
			if asks := c.how == tokens && !strings.Contains(c.body, "tools"); calls[0].GetTellTokenIds() != asks {
				t.Errorf("asked to tell tokens: %t, want %t", calls[0].GetTellTokenIds(), asks)
			}
			if c.code == "" {
				p.counted(request.Identity, r, c.usage, c.finish)
			}
			p.unseen(request.Identity)
		})
	}
}

// counted checks what the caller and the result are told that an answer cost, and why it ended.
func (p *pipe) counted(id schemas.Identity, r *schemas.Result, usage, finish string) {
	p.t.Helper()
	told := p.counts(id)
	if got := fmt.Sprint(gjson.Get(told, "prompt_tokens"), gjson.Get(told, "completion_tokens")); got != usage {
		p.t.Errorf("the caller was told a usage of %s, want %s", got, usage)
	}
	if r.Usage == nil || fmt.Sprint(r.Usage.PromptTokens, r.Usage.CompletionTokens) != usage || strings.Join(r.FinishReasons, " ") != finish {
		p.t.Errorf("the result says %+v and %v", r.Usage, r.FinishReasons)
	}
}

// A worker that is killed in the middle of a sampled answer over gRPC: the next goes on from what the chain holds.
func TestWorkerThatIsLostIsContinuedOverGRPC(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]inference.Continuation{"by tokens": tokens, "by text": text} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			s := newSampler(t, samplerDials{stall: 3}, samplerDials{})
			lost := p.worker("w1", s.backend(t, "first", how))
			item := p.dispatch(work("r1", 1, hello("")))
			id := identity("r1")
			live := p.reader(id)
			p.visible(id, 4) // the role and three tokens
			lost.kill()
			t.Cleanup(lost.stop)
			p.worker("w2", s.backend(t, "second", how))
			p.tap.nak(item, 1)
			if got := live(); got.text != sampledText(1, samplerTokens) || got.code() != "" {
				t.Errorf("got %q and %q; faults %v", got.text, got.code(), s.faults)
			}
			r := p.ended(id)
			if got := modes(p.chain(id)); got != "fresh continue" {
				t.Errorf("modes %s", got)
			}
			p.counted(id, r, "5 8", "stop")
			p.unseen(id)
		})
	}
}
