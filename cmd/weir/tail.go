package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/schemas"
)

func (c *cli) tailCommand() *cobra.Command {
	var tenant string
	var since time.Duration
	cmd := &cobra.Command{
		Use:     "tail",
		GroupID: groupUse,
		Short:   "Follow results as they land",
		Long: `Prints a line for each request that has ended, as its result lands, until it is
stopped. With --json each line is the whole record, with request and response.`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.tail(cmd.Context(), tenant, since) },
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only results of this `tenant`")
	cmd.Flags().DurationVar(&since, "since", 0, "begin with those of the last `duration`, such as 1h")
	return cmd
}

func (c *cli) tail(ctx context.Context, tenant string, since time.Duration) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	conn, err := c.client(ctx, cfg, "tail")
	if err != nil {
		return err
	}
	defer conn.Close()
	var from time.Time
	if since > 0 {
		from = time.Now().Add(-since)
	}
	for result, err := range conn.Tail(ctx, tenant, from) {
		if err != nil {
			return stopped(ctx, err)
		}
		if err := c.printResult(result); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) printResult(r *schemas.Result) error {
	if c.json {
		_, err := c.stdout.Write(append(r.Encode(), '\n'))
		return err
	}
	return printResultLine(c.stdout, r)
}

// printResultLine writes what a person wants to see of a result, without prompt and answer.
func printResultLine(w io.Writer, r *schemas.Result) error {
	line := fmt.Sprintf("%s  %s  %s  %s", r.Finished.Local().Format("15:04:05"), r.Identity(), r.Model, r.Status)
	if r.Status != schemas.StatusCompleted && len(r.Error) > 0 {
		if e, err := schemas.DecodeError(r.Error); err == nil {
			line += fmt.Sprintf(" (%s: %s)", e.Code, e.Message)
		}
	}
	if r.Usage != nil {
		line += fmt.Sprintf("  %d+%d tokens", r.Usage.PromptTokens, r.Usage.CompletionTokens)
	}
	if r.DurationMS > 0 {
		line += "  " + milliseconds(r.DurationMS).String()
	}
	if r.Attempts > 1 {
		line += fmt.Sprintf("  %d attempts", r.Attempts)
	}
	_, err := fmt.Fprintln(w, visible(line))
	return err
}

// visible is a line with what does not print written out. Models' names and errors are those of callers and servers, and
// must neither look like another line nor command the terminal.
func visible(line string) string {
	var b strings.Builder
	for _, r := range line {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

func milliseconds(ms float64) time.Duration {
	return (time.Duration(ms*1000) * time.Microsecond).Round(time.Millisecond / 10)
}

// stopped is nil when the command was told to stop, which for one that follows is how it ends.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}
