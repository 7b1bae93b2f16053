package triton_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendtest"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/inference/triton"
	pb "github.com/weir-llm/weir/internal/pb/triton"
	"github.com/weir-llm/weir/schemas"
)

func TestSuite(t *testing.T) {
	for _, op := range []schemas.Op{schemas.OpChat, schemas.OpCompletion} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, backendtest.Subject{
				Start: start, Dial: dial, Op: op,
				Unary: func(s backendtest.Script) bool { return s.Fault != backendtest.Hold || s.At < 0 },
				Codes: map[backendtest.Refusal]schemas.Code{backendtest.Invalid: ""}, // a message without a code: nobody knows who is to blame
			})
		})
	}
}

func start(t testing.TB, s backendtest.Script, timeouts inference.Timeouts) (inference.Backend, backendtest.Server) {
	f := serve(t, s)
	return dial(t, f.Address, false, timeouts), f
}

func dial(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend {
	t.Helper()
	scheme := "grpc://"
	if secure {
		scheme = "grpcs://"
	}
	return backend(t, triton.Config{URL: scheme + address, Template: triton.ChatML, Timeouts: timeouts})
}

func backend(t testing.TB, config triton.Config) *triton.Backend {
	t.Helper()
	config.Name = "test"
	b, err := triton.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// fake is a Triton with a decoupled model of the vLLM backend, which plays a script.
type fake struct {
	pb.UnimplementedGRPCInferenceServiceServer
	*rpctest.Server
	script   backendtest.Script
	sick     bool // not ready
	contents bool // tensors come as typed contents and not as raw bytes
	late     bool // the end mark comes with the last text

	mu    sync.Mutex
	asked []asked
}

// asked is what a request of the vLLM backend's tensors says.
type asked struct {
	Model, ID, Prompt string
	Sampling          map[string]any
}

func serve(t testing.TB, s backendtest.Script) *fake {
	f := &fake{script: s}
	f.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterGRPCInferenceServiceServer(g, f) }, grpc.MaxSendMsgSize(32<<20), grpc.MaxRecvMsgSize(32<<20))
	return f
}

func (f *fake) Requests() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]asked(nil), f.asked...)
}

func (f *fake) Asked() (models []string) {
	for _, a := range f.Requests() {
		models = append(models, a.Model)
	}
	return models
}

func (f *fake) ModelStreamInfer(stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]) error {
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	a, streamed, err := readRequest(r)
	if err != nil {
		return stream.Send(&pb.ModelStreamInferResponse{ErrorMessage: err.Error()})
	}
	f.mu.Lock()
	f.asked = append(f.asked, a)
	f.mu.Unlock()
	switch s := f.script; {
	case s.Fault == backendtest.Hold && s.At < 0:
		return f.Wait(stream.Context())
	case s.Fault == backendtest.Reset && s.At < 0:
		f.Break("")
		return rpctest.Lost()
	case s.Refusal != "" && s.Fault != backendtest.Fail:
		if err := refusedByProxy(s); err != nil {
			return err
		}
		return stream.Send(&pb.ModelStreamInferResponse{ErrorMessage: message(s.Refusal)})
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	p := player{fake: f, stream: stream, script: f.script}
	if !streamed {
		p.script.Text = []string{strings.Join(f.script.Text, "")}
		p.script.At = min(p.script.At, 0)
	}
	return p.play()
}

// player is one answer.
type player struct {
	*fake
	stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]
	script backendtest.Script
	sent   string
	told   int // tokens
}

func (p *player) play() error {
	s := p.script
	for i, text := range s.Text {
		if s.Fault != "" && i == s.At {
			return p.fault()
		}
		if i > 0 && s.Pace > 0 {
			select {
			case <-time.After(s.Pace):
			case <-p.stream.Context().Done():
				return p.Wait(p.stream.Context())
			}
		}
		last := i == len(s.Text)-1 && s.Fault == ""
		if err := p.send(text, last); err != nil {
			p.Left()
			return err
		}
	}
	if s.Fault != "" {
		return p.fault()
	}
	if !p.late {
		if err := p.stream.Send(&pb.ModelStreamInferResponse{InferResponse: &pb.ModelInferResponse{Parameters: final(true)}}); err != nil {
			return err
		}
	}
	_, err := p.stream.Recv() // as Triton does, it stays until its caller has no more to ask
	if err == nil {
		return status.Error(codes.InvalidArgument, "a second request")
	}
	return nil
}

// send sends a response with a piece of text; the last one says why the answer ended.
func (p *player) send(text string, last bool) error {
	p.sent = text
	finish, tokens := "None", 1
	if last {
		finish, tokens = p.script.Finish, int(p.script.Usage.CompletionTokens)-p.told
	}
	p.told += tokens
	r := &pb.ModelInferResponse{ModelName: "any", Parameters: final(last && p.late)}
	p.add(r, "text_output", text)
	p.add(r, "finish_reason", finish)
	p.count(r, "num_input_tokens", uint32(p.script.Usage.PromptTokens))
	p.count(r, "num_output_tokens", uint32(tokens))
	return p.stream.Send(&pb.ModelStreamInferResponse{InferResponse: r})
}

func final(yes bool) map[string]*pb.InferParameter {
	return map[string]*pb.InferParameter{"triton_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: yes}}}
}

func (p *player) add(r *pb.ModelInferResponse, name, text string) {
	tensor := &pb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "BYTES", Shape: []int64{1}}
	r.Outputs = append(r.Outputs, tensor)
	if p.contents {
		tensor.Contents = &pb.InferTensorContents{BytesContents: [][]byte{[]byte(text)}}
		return
	}
	r.RawOutputContents = append(r.RawOutputContents, append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...))
}

func (p *player) count(r *pb.ModelInferResponse, name string, n uint32) {
	tensor := &pb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "UINT32", Shape: []int64{1}}
	r.Outputs = append(r.Outputs, tensor)
	if p.contents {
		tensor.Contents = &pb.InferTensorContents{UintContents: []uint32{n}}
		return
	}
	r.RawOutputContents = append(r.RawOutputContents, binary.LittleEndian.AppendUint32(nil, n))
}

func (p *player) fault() error {
	switch p.script.Fault {
	case backendtest.Hold:
		return p.Wait(p.stream.Context())
	case backendtest.Reset:
		p.Break(p.sent)
		return rpctest.Lost()
	case backendtest.Fail:
		return p.stream.Send(&pb.ModelStreamInferResponse{ErrorMessage: message(p.script.Refusal)})
	case backendtest.Garbage:
		r := &pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: "text_output", Datatype: "BYTES", Shape: []int64{1}}}}
		r.RawOutputContents = [][]byte{[]byte(backendtest.Canary)} // whose first bytes are no length
		return p.stream.Send(&pb.ModelStreamInferResponse{InferResponse: r})
	}
	return nil // cut
}

// refusedByProxy is what stands before Triton and knows the codes of gRPC.
func refusedByProxy(s backendtest.Script) error {
	switch s.Refusal {
	case backendtest.RateLimit:
		st, err := status.New(codes.ResourceExhausted, backendtest.Canary).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(s.RetryAfter)})
		if err != nil {
			return fmt.Errorf("details: %w", err)
		}
		return st.Err()
	case backendtest.Credentials:
		return status.Error(codes.Unauthenticated, backendtest.Canary)
	}
	return nil
}

// message is what Triton and vLLM say.
func message(r backendtest.Refusal) string {
	switch r {
	case backendtest.Overloaded:
		return "[request id: req_1] Exceeds maximum queue size"
	case backendtest.UnknownModel:
		return "Request for unknown model: 'm' is not found"
	case backendtest.ContextLength:
		return "Error generating stream: The decoder prompt (length 5000) is longer than the maximum model length of 4096."
	case backendtest.GaveUp:
		return "Request timeout expired"
	}
	return "Error generating stream: " + backendtest.Canary
}

func (f *fake) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: !f.sick && f.script.Refusal == ""}, nil
}

func (f *fake) ModelReady(_ context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	return &pb.ModelReadyResponse{Ready: r.GetName() == "m1"}, nil
}

func (f *fake) RepositoryIndex(_ context.Context, r *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if f.script.Refusal != "" || !r.GetReady() {
		return nil, status.Error(codes.Internal, backendtest.Canary)
	}
	return &pb.RepositoryIndexResponse{Models: []*pb.RepositoryIndexResponse_ModelIndex{{Name: "m1", Version: "1"}, {Name: "m1", Version: "2"}, {Name: "m2", Version: "1"}}}, nil
}

// readRequest reads a request as Triton and the vLLM backend do, which refuse what they do not expect.
func readRequest(r *pb.ModelInferRequest) (a asked, streamed bool, err error) {
	a = asked{Model: r.GetModelName(), ID: r.GetId()}
	if len(r.GetInputs()) != len(r.GetRawInputContents()) || !r.GetParameters()["triton_enable_empty_final_response"].GetBoolParam() {
		return a, false, fmt.Errorf("got %d tensors and %d contents", len(r.GetInputs()), len(r.GetRawInputContents()))
	}
	flags := map[string]bool{}
	for i, input := range r.GetInputs() {
		raw := r.GetRawInputContents()[i]
		switch {
		case len(input.GetShape()) != 1 || input.GetShape()[0] != 1:
			return a, false, fmt.Errorf("unexpected shape for %s", input.GetName())
		case input.GetDatatype() == "BOOL" && len(raw) == 1:
			flags[input.GetName()] = raw[0] == 1
			continue
		case input.GetDatatype() != "BYTES" || len(raw) < 4 || int(binary.LittleEndian.Uint32(raw)) != len(raw)-4:
			return a, false, fmt.Errorf("inference input data-type for %s", input.GetName())
		}
		switch text := string(raw[4:]); input.GetName() {
		case "text_input":
			a.Prompt = text
		case "sampling_parameters":
			err = json.Unmarshal([]byte(text), &a.Sampling)
		default:
			err = fmt.Errorf("unexpected inference input %s", input.GetName())
		}
		if err != nil {
			return a, false, err
		}
	}
	for _, name := range []string{"exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"} {
		if !flags[name] {
			return a, false, fmt.Errorf("%s is not set", name)
		}
	}
	return a, flags["stream"], nil
}
