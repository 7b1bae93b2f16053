package main

import (
	"context"
	"strings"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Limits are what the caller allows.
type Limits struct {
	MaxTokens   int      // 0 = no limit
	Temperature *float64 // nil = the model's own
}

// Model answers a conversation. It calls say with each token as soon as it has it, and returns why the answer ended: stop, or
// length when the limit was reached. It must return soon after ctx ends: the caller has left. An error that [Failure] made
// reaches the caller with its code; any other is shown as a failure of the server.
type Model func(ctx context.Context, conversation []Message, limits Limits, say func(token string) error) (finish string, err error)

// Echo is the model of this example: it says what the user said.
func Echo(ctx context.Context, conversation []Message, limits Limits, say func(token string) error) (string, error) {
	question := ""
	for _, m := range conversation {
		if m.Role == "user" {
			question = m.Content
		}
	}
	for i, token := range strings.SplitAfter("echo: "+question, " ") {
		if limits.MaxTokens > 0 && i == limits.MaxTokens {
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
