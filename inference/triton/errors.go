package triton

import (
	"net/http"
	"strings"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// aborted is the finish_reason of an answer that the engine gave up.
const aborted = "abort"

// finishOf is a finish_reason in the terms of chat; empty for an answer that was given up.
func finishOf(reason string) string {
	switch reason {
	case "length":
		return reason
	case aborted:
		return ""
	}
	return "stop"
}

// refusal is the error of a call that the server or the model ended with a message, which is all that it tells: there is
// no code in it.
func refusal(message string) *schemas.Error {
	r := openai.Refusal{Said: "Triton", Message: message}
	says := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(strings.ToLower(message), text) {
				return true
			}
		}
		return false
	}
	switch {
	case says("not at ready state", "not ready", "unavailable: "):
		r.Status = http.StatusServiceUnavailable
	case says("unknown model"):
		r.Status, r.Code = http.StatusNotFound, string(schemas.CodeModelNotFound)
	case says("exceeds maximum queue size"):
		r.Status, r.Code = http.StatusServiceUnavailable, string(schemas.CodeOverloaded)
	case says("timeout expired"):
		r.Status = http.StatusGatewayTimeout
	case says("maximum model length", "maximum context length", "max_model_len"):
		r.Status, r.Code, r.Param = http.StatusBadRequest, string(schemas.CodeContextLength), ""
	case says("inference input", "inference inputs", "unexpected shape", "data-type"):
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server does not take the tensors of the vLLM backend; have the operator check the backend's model, and that its vLLM backend has return_finish_reason")
	}
	return openai.RefusalError(r)
}
