package triton

import (
	"encoding/binary"
	"errors"

	pb "github.com/weir-llm/weir/internal/pb/triton"
)

// Tensors of the vLLM backend, and their types.
const (
	inputText     = "text_input"
	inputStream   = "stream"
	inputSampling = "sampling_parameters"
	inputExclude  = "exclude_input_in_output"
	inputFinish   = "return_finish_reason"
	inputPrompt   = "return_num_input_tokens"
	inputAnswer   = "return_num_output_tokens"

	outputText   = "text_output"
	outputFinish = "finish_reason"
	outputPrompt = "num_input_tokens"
	outputAnswer = "num_output_tokens" // since the last response

	typeBytes = "BYTES"
	typeBool  = "BOOL"
)

// Parameters of the protocol: the end of a decoupled model's answer is asked for, and told.
const (
	askFinal = "triton_enable_empty_final_response"
	isFinal  = "triton_final_response"
)

// finishNone is the finish_reason of an answer that goes on.
const finishNone = "None"

var errTensor = errors.New("a tensor that cannot be read")

// newRequest asks a model to answer a prompt, and to say why it ended and what it counted.
func newRequest(model, id, prompt string, sampling []byte, stream bool) *pb.ModelInferRequest {
	r := &pb.ModelInferRequest{
		ModelName: model, Id: id,
		Parameters: map[string]*pb.InferParameter{askFinal: {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}},
	}
	add := func(name, datatype string, raw []byte) {
		r.Inputs = append(r.Inputs, &pb.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Shape: []int64{1}})
		r.RawInputContents = append(r.RawInputContents, raw)
	}
	yes, no := []byte{1}, []byte{0}
	add(inputText, typeBytes, element(prompt))
	if stream {
		add(inputStream, typeBool, yes)
	} else {
		add(inputStream, typeBool, no)
	}
	add(inputSampling, typeBytes, element(string(sampling)))
	for _, name := range [...]string{inputExclude, inputFinish, inputPrompt, inputAnswer} {
		add(name, typeBool, yes)
	}
	return r
}

// element is a tensor of one string: its length and its bytes.
func element(text string) []byte {
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text))), text...)
}

// response is what the tensors of a response say.
type response struct {
	text   string
	finish string // empty while the answer goes on
	prompt uint64 // tokens; 0 = not told
	answer uint64 // tokens of this response
	final  bool
	told   bool // it has text, if only an empty one
}

// read reads a response of the server. Tensors that it does not know are left alone.
func read(m *pb.ModelInferResponse) (r response, err error) {
	r.final = m.GetParameters()[isFinal].GetBoolParam()
	for i, output := range m.GetOutputs() {
		var raw []byte
		if i < len(m.GetRawOutputContents()) {
			raw = m.GetRawOutputContents()[i]
		}
		switch output.GetName() {
		case outputText:
			r.told = true
			r.text, err = text(raw, output.GetContents())
		case outputFinish:
			r.finish, err = text(raw, output.GetContents())
		case outputPrompt:
			r.prompt, err = sum(raw, output.GetContents())
		case outputAnswer:
			r.answer, err = sum(raw, output.GetContents())
		}
		if err != nil {
			return r, err
		}
	}
	if r.finish == finishNone {
		r.finish = ""
	}
	return r, nil
}

// text is the first string of a tensor.
func text(raw []byte, contents *pb.InferTensorContents) (string, error) {
	if all := contents.GetBytesContents(); len(all) > 0 {
		return string(all[0]), nil
	}
	if len(raw) < 4 {
		return "", errTensor
	}
	if size := binary.LittleEndian.Uint32(raw); uint64(size) <= uint64(len(raw)-4) {
		return string(raw[4 : 4+size]), nil
	}
	return "", errTensor
}

// sum is that of the numbers of a tensor, of which there is one for each answer.
func sum(raw []byte, contents *pb.InferTensorContents) (total uint64, err error) {
	for _, n := range contents.GetUintContents() {
		total += uint64(n)
	}
	if len(raw)%4 != 0 {
		return 0, errTensor
	}
	for ; len(raw) > 0; raw = raw[4:] {
		total += uint64(binary.LittleEndian.Uint32(raw))
	}
	return total, nil
}
