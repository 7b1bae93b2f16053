package main

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Question is what the model is asked.
type Question struct {
	Conversation []Message
	Begun        string   // what was said so far of an answer that was cut: say only what follows it, white space included
	MaxTokens    int      // of what is still to be said; 0 = no limit
	Temperature  *float64 // nil = the model's own
}

// Model answers a question. It calls say with each token as soon as it has it, and returns why the answer ended: stop, or
// length when the limit was reached. It must return soon after ctx ends: the caller has left. An error that [Failure] made
// reaches the caller with its code; any other is shown as a failure of the server. One that cannot go on with an answer
// refuses a question that has Begun.
type Model func(ctx context.Context, q Question, say func(token string) error) (finish string, err error)

// Echo is the model of this example: it says what the user said.
func Echo(ctx context.Context, q Question, say func(token string) error) (string, error) {
	question := ""
	for _, m := range q.Conversation {
		if m.Role == "user" {
			question = m.Content
		}
	}
	rest, goesOn := strings.CutPrefix("echo: "+question, q.Begun)
	if !goesOn {
		return "", Failure(codes.InvalidArgument, "unsupported", "the answer does not begin like this", "", 0)
	}
	for i, token := range strings.SplitAfter(rest, " ") {
		if q.MaxTokens > 0 && i == q.MaxTokens {
			return "length", nil
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := say(token); err != nil {
			return "", err
		}
	}
	return "stop", nil
}
