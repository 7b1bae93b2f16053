package main

import (
	"context"
	"fmt"

	"github.com/tidwall/gjson"
)

// checkOps asks over NATS for what is no chat: the header Llm-Op says what a body is.
func (n natsCLI) checkOps(ctx context.Context) error {
	for op, test := range map[string]struct{ body, path, want string }{
		"completion": {`{"model":"echo","prompt":"one two"}`, "choices.0.text", "echo: one two"},
		"embedding":  {`{"model":"echo","input":"one","dimensions":3,"encoding_format":"base64"}`, "data.0.object", "embedding"},
	} {
		id := "conformance-" + op
		if _, err := n.run(ctx, "req", "--raw", "llm.requests.default.echo", test.body, "--header", "Llm-Request-Id:"+id, "--header", "Llm-Op:"+op); err != nil {
			return err
		}
		frames, err := n.finished(ctx, id)
		if err != nil {
			return err
		}
		last := frames[len(frames)-1]
		if kind, _, count := last.frame(); kind != "end" || count != 1 || gjson.GetBytes(last.Data, test.path).Str != test.want {
			return fmt.Errorf("%s: %v, the last says %s", op, headers(frames), last.Data)
		}
	}
	if _, err := n.run(ctx, "req", "--raw", "llm.requests.default.echo", `{"model":"echo","messages":[]}`, "--header", "Llm-Request-Id:conformance-wrong-op", "--header", "Llm-Op:embedding"); err != nil {
		return err
	}
	return n.wantErrorFrame(ctx, "conformance-wrong-op", "missing_required_parameter")
}
