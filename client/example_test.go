package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

// A trusted service connects with credentials of the account that the pipeline works in; on loopback an open server asks
// for none.
func ExampleConnect_trusted() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL, Tenant: "acme"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	answer, err := c.Complete(ctx, client.Request{Body: []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"words":["Hello"]}`)})
	fmt.Println(string(answer.Data), err)
	// Output:
	// {"answer": "Hello"} <nil>
}

// A tenant on NATS needs its API key, and its name, which is part of every subject.
func ExampleConnect_tenant() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL, Tenant: "acme", APIKey: apiKey})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	answer, err := c.Complete(ctx, client.Request{Body: []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"words":["Hello"]}`)})
	fmt.Println(string(answer.Data), err)
	// Output:
	// {"answer": "Hello"} <nil>
}

// Over HTTP the API key says whose the requests are.
func ExampleConnect_http() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: doorURL + "/v1", APIKey: apiKey})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	answer, err := c.Complete(ctx, client.Request{Body: []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"words":["Hello"]}`)})
	fmt.Println(string(answer.Data), err)
	// Output:
	// {"answer": "Hello"} <nil>
}

// Whatever the transport, an error of the pipeline has a code, and says whether and when to try again.
func ExampleClient_Complete() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: doorURL, APIKey: apiKey})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	_, err = c.Complete(ctx, client.Request{Body: []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"fail":true}`)})
	if e, ok := errors.AsType[*schemas.Error](err); ok {
		fmt.Println(e.Code, e.Retryable(), e.Message)
	}
	// Output:
	// upstream_stream_interrupted true the model broke off
}

// Sending twice with one key is sending once, from whichever process, also after a restart.
func ExampleClient_Send() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL, Tenant: "acme", APIKey: apiKey})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	request := client.Request{
		IdempotencyKey: "Invoice #4711, reminder 2",
		Body:           []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"words":["Please","pay"]}`),
	}
	first, err := c.Send(ctx, request)
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := c.Send(ctx, request)
	fmt.Println(first == second, err)

	request.Body = []byte(`{"model":"echo","messages":[{"role":"user","content":"Another"}]}`)
	_, err = c.Send(ctx, request)
	if e, ok := errors.AsType[*schemas.Error](err); ok {
		fmt.Println(e.Code)
	}
	// Output:
	// true <nil>
	// idempotency_mismatch
}

func ExampleClient_Stream() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	request := client.Request{Body: []byte(`{"model":"echo","stream":true,"messages":[{"role":"user","content":"Hi"}],"words":["Hello","world"]}`)}
	for event, err := range c.Stream(ctx, request) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(event.Cursor.Index, string(event.Data))
	}
	// Output:
	// 0 {"word":"Hello"}
	// 1 {"word":"world"}
}

// A service that restarts sends its request again with the same id and goes on after the last event that it has kept.
func ExampleClient_Resume() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	id, err := c.Send(ctx, client.Request{
		Tenant: "acme", ID: "invoice-4711",
		Body: []byte(`{"model":"echo","stream":true,"messages":[{"role":"user","content":"Hi"}],"words":["The","invoice","is","due"]}`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	kept := schemas.Cursor{Request: id, Index: 1}
	for event, err := range c.Resume(ctx, "acme", id, kept.Index+1) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(event.Cursor, string(event.Data))
	}
	// Output:
	// invoice-4711.2 {"word":"is"}
	// invoice-4711.3 {"word":"due"}
}

func ExampleClient_Wait() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	id, err := c.Send(ctx, client.Request{
		Body:     []byte(`{"model":"echo","messages":[{"role":"user","content":"Hi"}],"words":["Hello","world"]}`),
		Deadline: time.Now().Add(time.Minute), Priority: schemas.PriorityBatch,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := c.Wait(ctx, client.DefaultTenant, id)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Status, result.Usage.TotalTokens, string(result.Response))
	// Output:
	// completed 2 {"answer": "Hello world"}
}

func ExampleClient_Cancel() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	id, err := c.Send(ctx, client.Request{Body: []byte(`{"model":"echo","stream":true,"messages":[{"role":"user","content":"Hi"}],"hang":true}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Cancel(ctx, client.DefaultTenant, id); err != nil {
		fmt.Println(err)
		return
	}
	for _, err := range c.Resume(ctx, client.DefaultTenant, id, 0) {
		if e, ok := errors.AsType[*schemas.Error](err); ok {
			fmt.Println(e.Code)
		}
	}
	// Output:
	// request_cancelled
}
