package backendv1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// TestResume has what a server gets that is to go on with an answer, and what becomes of what it says.
func TestResume(t *testing.T) {
	t.Parallel()
	const body = `{"model":"m","stream":true,"max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`
	origin := openai.Origin{ID: `"first"`, Created: "7", Model: `"m"`}
	byTokens := &inference.Resume{IDs: []int64{1, 2, 4_000_000_000, 11, 12}, Tokens: 2, Origin: origin}
	byText := &inference.Resume{Text: "so far", Tokens: 3, Origin: origin}
	for name, test := range map[string]struct {
		how     inference.Continuation
		resume  *inference.Resume
		resumed bool
		want    *pb.GenerateRequest // nil: no call
		code    schemas.Code
	}{
		"by tokens":         {inference.ContinueTokens, byTokens, true, &pb.GenerateRequest{PromptTokenIds: []uint32{1, 2, 4_000_000_000}, ResumeTokenIds: []uint32{11, 12}, BodyJson: []byte(strings.Replace(body, "10", "8", 1))}, ""},
		"by text":           {inference.ContinueText, byText, true, &pb.GenerateRequest{ResumeText: "so far", BodyJson: []byte(strings.Replace(body, "10", "7", 1))}, ""},
		"text and tokens":   {inference.ContinueTokens, byText, true, &pb.GenerateRequest{ResumeText: "so far", BodyJson: []byte(strings.Replace(body, "10", "7", 1))}, ""},
		"it begins again":   {inference.ContinueText, byText, false, &pb.GenerateRequest{ResumeText: "so far", BodyJson: []byte(strings.Replace(body, "10", "7", 1))}, schemas.CodeUnsupported},
		"tokens, text only": {inference.ContinueText, byTokens, true, nil, schemas.CodeUnsupported},
		"not at all":        {inference.ContinueNone, byText, true, nil, schemas.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *pb.GenerateRequest
			server := serve(t, func(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
				got = r
				all := ending(&pb.Final{}, openaitest.Answer(" more")...)
				all.Resumed = test.resumed
				return stream.Send(all)
			})
			b := backend(t, backendv1.Config{URL: "grpc://" + server.Address, Continue: test.how})
			if c := b.Capabilities(); c.Continue != test.how {
				t.Errorf("capabilities %+v", c)
			}
			r := request(body)
			r.Resume = test.resume
			a := ask(t.Context(), b, r)
			if test.want != nil {
				test.want.RequestId, test.want.Tenant, test.want.Op, test.want.Attempt = "req_1", "acme", "chat", 2
			}
			if test.want == nil && got != nil || test.want != nil && !proto.Equal(test.want, got) {
				t.Errorf("the server got %v, want %v", got, test.want)
			}
			if test.code != "" {
				if a.err == nil || a.err.Code != test.code || len(a.events) > 0 {
					t.Errorf("%q, then %v; want %s alone", a.events, a.err, test.code)
				}
				return
			}
			want := strings.NewReplacer(`"chatcmpl-1"`, origin.ID, "1764000000", origin.Created)
			if len(a.events) != 2 || a.err != nil || a.events[0] != want.Replace(openaitest.Answer(" more")[1]) {
				t.Errorf("%q, then %v; want the text and the end, as parts of the first answer", a.events, a.err)
			}
		})
	}
}

// TestTold has what is told beside the events of an answer, and only when it was asked for.
func TestTold(t *testing.T) {
	t.Parallel()
	ids := func(all ...uint32) *pb.Tokens { return &pb.Tokens{Id: all} }
	server := serve(t, func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		answer := openaitest.Answer("a", "b", "c", "d")
		both, apart, last := chunks(answer[:3]...), chunks(answer[3:5]...), ending(&pb.Final{}, answer[5:]...)
		both.PromptTokenIds, both.TokenIds = []uint32{1, 2}, []*pb.Tokens{ids(), ids(10), ids(11, 12)}
		apart.TokenIds = []*pb.Tokens{ids(13, 14)}
		for _, m := range []*pb.GenerateEvent{both, apart, last} {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	})
	for name, test := range map[string]struct {
		how  inference.Continuation
		tell bool
		want string
	}{
		"asked for":     {inference.ContinueTokens, true, "real:1,2/ real:/10 real:/11,12 real:/ real:/ real:/"},
		"not asked for": {inference.ContinueTokens, false, "- - - - - -"},
		"by text alone": {inference.ContinueText, true, "- - - - - -"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backend(t, backendv1.Config{URL: "grpc://" + server.Address, Continue: test.how, Model: "real"})
			r := request(chat)
			r.Tell = test.tell
			var got []string
			for event, err := range b.Generate(t.Context(), r) {
				switch {
				case err != nil:
					t.Fatal(err)
				case len(event.Data) == 0:
				case event.Running == nil:
					got = append(got, "-")
				default:
					got = append(got, fmt.Sprintf("%s:%s/%s", event.Running.Vocabulary, event.Running.Prompt, event.Running.TokenIDs))
				}
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}
