package main

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/weir-llm/weir/internal/pb/backendv1"
)

// answer is one answer under way: chunks as they come for a caller that streams, one document at the end for another.
type answer struct {
	stream   grpc.ServerStreamingServer[pb.GenerateEvent]
	id       string
	model    string
	created  int64
	streamed bool
	resumed  bool // only the rest of an answer is said

	text   strings.Builder
	tokens int
}

// document is a chat.completion.chunk or a chat.completion.
type document struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
}

type choice struct {
	Index   int      `json:"index"`
	Delta   *content `json:"delta,omitempty"`
	Message *content `json:"message,omitempty"`
	Finish  *string  `json:"finish_reason"`
}

type content struct {
	Role string  `json:"role,omitempty"`
	Text *string `json:"content,omitempty"`
}

// begin opens a stream, whose first chunk says who speaks. Its first message says whether the answer goes on.
func (a *answer) begin() error {
	if !a.streamed {
		return nil
	}
	return a.stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{a.chunk(content{Role: "assistant", Text: new("")}, nil)}, Resumed: a.resumed})
}

// say sends a token. It blocks while the caller has too much unread.
func (a *answer) say(token string) error {
	a.tokens++
	if !a.streamed {
		a.text.WriteString(token)
		return nil
	}
	return a.stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{a.chunk(content{Text: &token}, nil)}})
}

// end says that the answer is whole, and what it cost. Without it the answer counts as cut.
func (a *answer) end(finish string, promptTokens int) error {
	last := a.chunk(content{}, &finish)
	if !a.streamed {
		last = a.encode("chat.completion", choice{Message: &content{Role: "assistant", Text: new(a.text.String())}, Finish: &finish})
	}
	return a.stream.Send(&pb.GenerateEvent{
		ChunkJson: [][]byte{last}, Final: &pb.Final{PromptTokens: uint32(promptTokens), CompletionTokens: uint32(a.tokens)},
	})
}

func (a *answer) chunk(delta content, finish *string) []byte {
	return a.encode("chat.completion.chunk", choice{Delta: &delta, Finish: finish})
}

func (a *answer) encode(object string, c choice) []byte {
	data, err := json.Marshal(document{ID: a.id, Object: object, Created: a.created, Model: a.model, Choices: []choice{c}})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return data
}

func retryInfo(after time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}
}
