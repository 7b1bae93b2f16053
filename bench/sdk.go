package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/weir-llm/weir/internal/openai"
)

// caller is a client's connection to a target. post sends a body and calls event with the data of each event of a
// streamed answer, or once with the body of another; it returns when the answer has ended.
type caller interface {
	post(body []byte, event func(data []byte)) error
	Close() error
}

// sdkCaller does what an SDK does: HTTP by net/http, and every chunk decoded.
type sdkCaller struct {
	client *http.Client
	url    string
}

func newSDKCaller(addr string) *sdkCaller {
	return &sdkCaller{client: &http.Client{Transport: &http.Transport{DisableCompression: true}}, url: "http://" + addr + completionsPath}
}

func (c *sdkCaller) Close() error { c.client.CloseIdleConnections(); return nil }

// decoded is what a caller of an SDK is handed.
type decoded struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Choices []struct {
		Index int `json:"index"`
		Delta struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"delta"`
		Message struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"message"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
}

func (c *sdkCaller) post(body []byte, event func(data []byte)) error {
	response, err := c.client.Post(c.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300)) // the status says it already
		return fmt.Errorf("status %d: %s", response.StatusCode, text)
	}
	if response.Header.Get("Content-Type") == "application/json" {
		data, err := io.ReadAll(response.Body)
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		return decode(data, event)
	}
	for part, err := range openai.NewReader(response.Body).Events() {
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		if part.Done() {
			event(part.Data)
			continue
		}
		if err := decode(part.Data, event); err != nil {
			return err
		}
	}
	return nil
}

func decode(data []byte, event func(data []byte)) error {
	var chunk decoded
	if err := json.Unmarshal(data, &chunk); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	event(data)
	return nil
}
