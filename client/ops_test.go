package client_test

import (
	"context"
	"testing"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

// asked is a request in the form of an operation. What the pipeline answers is the same for all.
func asked(op schemas.Op, order string) client.Request {
	bodies := map[schemas.Op]string{
		schemas.OpChat:       `{"model":"echo","messages":[{"role":"user","content":"hi"}]`,
		schemas.OpCompletion: `{"model":"echo","prompt":"hi"`,
		schemas.OpMessages:   `{"model":"echo","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`,
		schemas.OpResponses:  `{"model":"echo","input":"hi"`,
	}
	return client.Request{Op: op, Body: []byte(bodies[op] + "," + order + "}")}
}

// Every operation has the same events over each transport, live and read again.
func TestOperationsHaveTheSameEvents(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		for _, op := range []schemas.Op{schemas.OpChat, schemas.OpCompletion, schemas.OpMessages, schemas.OpResponses} {
			want := []string{`0 {"word":"a"}`, `1 {"word":"b"}`}
			if op == schemas.OpMessages {
				want = append(want, `2 {"type":"message_stop"}`)
			}
			request := asked(op, `"stream":true,"words":["a","b"]`)
			request.ID = "op-" + string(op) + "-" + unique()
			got, err := read(c.Stream(ctx, request))
			check(t, got, err, want...)
			got, err = read(c.Resume(ctx, "acme", request.ID, 1))
			check(t, got, err, want[1:]...)

			request = asked(op, `"words":["a","b"]`)
			request.ID = "unary-" + string(op) + "-" + unique()
			answer, err := c.Complete(ctx, request)
			if err != nil || string(answer.Data) != `{"answer": "a b"}` {
				t.Errorf("%s: answer %q, %v", op, answer.Data, err)
			}
			if r, err := c.Wait(ctx, "acme", request.ID); err != nil || r.Status != schemas.StatusCompleted {
				t.Errorf("%s: result %+v, %v", op, r, err)
			}
		}
	})
}

// What a door refuses, before the answer and in the middle of it, is the same error in every dialect.
func TestOperationsFail(t *testing.T) {
	overEach(t, func(t *testing.T, ctx context.Context, c *client.Client) {
		for _, op := range []schemas.Op{schemas.OpMessages, schemas.OpResponses} {
			got, err := read(c.Stream(ctx, asked(op, `"stream":true,"words":["a"],"fail":true`)))
			if code(err) != schemas.CodeUpstreamInterrupted {
				t.Errorf("%s: error %v, want %s", op, err, schemas.CodeUpstreamInterrupted)
			}
			check(t, got, nil, `0 {"word":"a"}`)
		}
	})
}

// A key that may only read is at home on every transport, and sends nothing on any.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	writer, ctx := way{"http", doorURL, client.Config{APIKey: apiKey}}.connect(t, doorURL)
	id, err := writer.Send(ctx, words(`"stream":true,"words":["a","b"]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []way{
		{"tenant", serverURL, client.Config{Tenant: "acme", APIKey: auditKey, ReadOnly: true}},
		{"http", doorURL, client.Config{Tenant: "acme", APIKey: auditKey, ReadOnly: true}},
	} {
		t.Run(w.name, func(t *testing.T) {
			c, ctx := w.connect(t, w.to)
			got, err := read(c.Resume(ctx, "acme", id, 0))
			check(t, got, err, `0 {"word":"a"}`, `1 {"word":"b"}`)
			if r, err := c.Wait(ctx, "acme", id); err != nil || r.Status != schemas.StatusCompleted {
				t.Errorf("result %+v, %v", r, err)
			}
			if _, err := c.Complete(ctx, words(`"words":["a"]`)); code(err) != schemas.CodeScope && code(err) != schemas.CodeModelNotAllowed {
				t.Errorf("a request: %v", err)
			}
		})
	}
}
