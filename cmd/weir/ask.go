package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// cancelWithin bounds the wait for a request to end after Ctrl-C.
const cancelWithin = 5 * time.Second

// errCancelled is how ask ends after Ctrl-C.
var errCancelled = errors.New("cancelled")

func (c *cli) askCommand() *cobra.Command {
	var model, tenant string
	cmd := &cobra.Command{
		Use:     "ask PROMPT",
		GroupID: groupUse,
		Short:   "Send one request and stream the answer to the terminal",
		Long: `Sends a prompt over NATS and prints the answer as it comes. The id of the request,
with which replay shows it again, goes to stderr. Ctrl-C cancels the request. With -
the prompt is read from stdin. With --json each event is printed as the model sent it.`,
		Example: "  weir ask \"Why is the sky blue?\"\n  git diff | weir ask --model gpt-4.1 -",
		Args:    arguments(1, 1, "one prompt, in quotes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.ask(cmd.Context(), args[0], model, tenant)
		},
	}
	cmd.Flags().StringVar(&model, "model", "", "`name` of the model; needed when the configuration has several")
	cmd.Flags().StringVar(&tenant, "tenant", defaultTenant, "`tenant` to ask as")
	return cmd
}

func (c *cli) ask(ctx context.Context, prompt, model, tenant string) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if model == "" {
		if model, err = onlyModel(cfg); err != nil {
			return err
		}
	}
	if prompt == "-" {
		text, err := io.ReadAll(io.LimitReader(c.stdin, schemas.MaxBodyBytes))
		if err != nil {
			return fmt.Errorf("read the prompt: %w", err)
		}
		prompt = string(text)
	}
	conn, err := c.client(ctx, cfg, "ask")
	if err != nil {
		return err
	}
	defer conn.Close()
	request := client.Request{Tenant: tenant, ID: "req_" + ulid.Make().String(), Body: chatBody(model, prompt)}
	fmt.Fprintf(c.stderr, "%s/%s\n", request.Tenant, request.ID)
	err = c.showAnswer(conn.Stream(ctx, request))
	if ctx.Err() == nil {
		return err
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelWithin)
	defer cancel()
	if err := conn.Cancel(ending, request.Tenant, request.ID); err != nil {
		return fmt.Errorf("cancel: %w; the request may still run", err)
	}
	return errCancelled
}

func onlyModel(cfg *Config) (string, error) {
	names := cfg.modelNames()
	if len(names) > 1 {
		return "", fmt.Errorf("there are several models: choose one of %s with --model", strings.Join(names, ", "))
	}
	return names[0], nil
}

func chatBody(model, prompt string) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body, err := json.Marshal(struct {
		Model    string    `json:"model"`
		Messages []message `json:"messages"`
		Stream   bool      `json:"stream"`
	}{model, []message{{"user", prompt}}, true})
	if err != nil {
		panic(err) // strings and a bool always marshal
	}
	return body
}

// showAnswer writes the text of the events as they come, or the events themselves with --json.
func (c *cli) showAnswer(events func(yield func(client.Event, error) bool)) error {
	var chunk openai.Chunk
	last := byte('\n')
	for event, err := range events {
		if err != nil {
			c.endLine(last)
			return err
		}
		text := append(slices.Clip(event.Data), '\n')
		if !c.json {
			text = content(&chunk, event.Data)
			if c.terminal {
				text = harmless(text)
			}
		}
		if len(text) == 0 {
			continue
		}
		last = text[len(text)-1]
		if _, err := c.stdout.Write(text); err != nil {
			return err
		}
	}
	c.endLine(last)
	return nil
}

// harmless is text whose control characters do not reach a terminal, which would obey them: a model repeats what it reads.
func harmless(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\ufffd'
		}
		return r
	}, text)
}

// isTerminal reports whether what is written there is shown rather than kept.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// endLine leaves the terminal at the beginning of a line.
func (c *cli) endLine(last byte) {
	if last != '\n' {
		fmt.Fprintln(c.stdout)
	}
}

func content(chunk *openai.Chunk, event []byte) (text []byte) {
	if chunk.Peek(event) != nil {
		return nil
	}
	for _, choice := range chunk.Choices {
		text = append(text, choice.Content...)
	}
	return text
}
