package triton

import (
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/weir-llm/weir/internal/pb/triton"
	"github.com/weir-llm/weir/schemas"
)

// TestMessages has what Triton and vLLM are known to say, since that is all there is to tell errors apart.
func TestMessages(t *testing.T) {
	for message, want := range map[string]schemas.Code{
		"Request for unknown model: 'x' is not found":                                                      schemas.CodeModelNotFound,
		"Request for unknown model: 'x' is not at ready state":                                             schemas.CodeUpstreamError,
		"[request id: <id_unknown>] Exceeds maximum queue size":                                            schemas.CodeOverloaded,
		"Request timeout expired":                                                                          schemas.CodeUpstreamTimeout,
		"The decoder prompt (length 9) is longer than the maximum model length of 4":                       schemas.CodeContextLength,
		"This model's maximum context length is 4096 tokens":                                               schemas.CodeContextLength,
		"[request id: 1] unexpected inference input 'return_finish_reason' for model 'm'":                  schemas.CodeUpstreamError,
		"[request id: 1] inference input 'text_input' data-type is 'INT32', but model 'm' expects 'BYTES'": schemas.CodeUpstreamError,
		"Error generating stream: out of memory":                                                           schemas.CodeUpstreamError,
	} {
		if got := refusal(message); got.Code != want {
			t.Errorf("%q is %v, want %s", message, got, want)
		}
	}
}

// FuzzRead reads any response without a panic, and takes from its tensors no more than they hold.
func FuzzRead(f *testing.F) {
	add := func(m *pb.ModelInferResponse) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(&pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: outputText}, {Name: outputFinish}}, RawOutputContents: [][]byte{element("hi"), element("stop")}})
	add(&pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: outputText}, {Name: outputAnswer}}, RawOutputContents: [][]byte{{255, 255, 255, 255}, {1, 2, 3}}})
	add(&pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: outputPrompt}, {Name: outputText, Contents: &pb.InferTensorContents{BytesContents: [][]byte{[]byte("a")}}}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &pb.ModelInferResponse{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		if r, err := read(m); err == nil && len(r.text)+len(r.finish) > len(data) {
			t.Errorf("%d bytes were read of %d", len(r.text)+len(r.finish), len(data))
		}
	})
}
