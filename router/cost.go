package router

import "github.com/weir-llm/weir/internal/openai"

const (
	// bytesPerToken is how long a token of a request is taken to be; counting exactly costs 0.2 ms per KB.
	bytesPerToken = 3.6
	// assumedOutput is what an answer is taken to have, in tokens, when its caller sets no limit.
	assumedOutput = 512
	// maxCost bounds what one request counts for.
	maxCost = 1 << 20
)

// cost is what a request counts for against the share of its tenant: the tokens of its body and of its answers, both
// estimated. input is those of the body, which may have been counted.
func cost(r *openai.Request, count func(model string) func(body []byte) int64) (input, all int64) {
	output := r.MaxTokens
	if output == 0 {
		output = assumedOutput
	}
	output = min(output, maxCost) * max(r.N, 1)
	prompt := int(float64(len(r.Body)) / bytesPerToken)
	if count != nil {
		if exactly := count(r.Model); exactly != nil {
			prompt = int(min(exactly(r.Body), maxCost))
		}
	}
	all = int64(min(max(prompt+output, 1), maxCost))
	return min(int64(prompt), all), all
}
