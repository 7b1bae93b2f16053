package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

func ExampleClient_Stream() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	request := client.Request{Body: []byte(`{"model":"echo","stream":true,"messages":[],"words":["Hello","world"]}`)}
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
		Body: []byte(`{"model":"echo","stream":true,"messages":[],"words":["The","invoice","is","due"]}`),
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
		Body:     []byte(`{"model":"echo","messages":[],"words":["Hello","world"]}`),
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

	id, err := c.Send(ctx, client.Request{Body: []byte(`{"model":"echo","stream":true,"messages":[],"hang":true}`)})
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
