package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
)

// tally is what became of the requests of a cell.
type tally struct {
	requests, whole, failed, resumes, takenOver int
}

// resultWithin is by when the result must follow the end of the answer.
const resultWithin = time.Minute

// checkCalls compares what each reader saw with the chain and the result.
func checkCalls(ctx context.Context, c *cluster, calls []*call) (t tally, err error) {
	b, err := bus.Connect(ctx, bus.Config{URL: c.url(), Name: "chaos"})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, call := range calls {
		result, err := await(ctx, func(ctx context.Context) (*schemas.Result, error) { return b.Result(ctx, call.identity()) })
		if err != nil {
			return t, fmt.Errorf("%s has no result: %w", call.id, err)
		}
		// A cluster that has just lost a node may not answer at once.
		chain, err := await(ctx, func(ctx context.Context) (*bus.Chain, error) { return b.Chain(ctx, call.identity()) })
		if err != nil {
			return t, fmt.Errorf("read the chain of %s: %w", call.id, err)
		}
		if err := errors.Join(checkChain(chain), checkReader(call, chain, result)); err != nil {
			return t, fmt.Errorf("%s: %w\n%s", call.id, err, describe(chain))
		}
		t.count(call, chain)
	}
	return t, nil
}

func (t *tally) count(c *call, chain *bus.Chain) {
	t.requests++
	t.resumes += c.resumes
	if c.code == "" {
		t.whole++
	} else {
		t.failed++
	}
	if chain.Attempts() > 1 {
		t.takenOver++
	}
}

// await reads until it succeeds, for resultWithin at most.
func await[T any](ctx context.Context, read func(context.Context) (T, error)) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, resultWithin)
	defer cancel()
	for {
		if value, err = read(ctx); err == nil {
			return value, nil
		}
		select {
		case <-ctx.Done():
			return value, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkChain holds a chain against the invariants: contiguous events, attempts that never go back, one writer an attempt,
// one terminal frame, and nothing after it. The copy of another's answer is gone on with by the next router, under a name
// of its own, where the last one stopped.
func checkChain(chain *bus.Chain) error {
	next, attempt, writer, copied := uint64(0), 0, "", false
	for i, f := range chain.Frames {
		switch {
		case f.Index != next:
			return fmt.Errorf("frame %d begins with event %d instead of %d", i, f.Index, next)
		case f.Attempt < attempt:
			return fmt.Errorf("frame %d is of attempt %d after attempt %d", i, f.Attempt, attempt)
		case f.Kind.Terminal() != (i == len(chain.Frames)-1):
			return fmt.Errorf("frame %d of %d is %s", i, len(chain.Frames), f.Kind)
		case f.Kind == schemas.KindDelta && f.Writer != writer && !copied:
			return fmt.Errorf("frame %d is of writer %s, but %s has claimed the chain", i, f.Writer, writer)
		}
		if f.Start != nil {
			writer, copied = f.Writer, f.Start.Mode == schemas.ModeFollow
		}
		next, attempt = f.Next(), f.Attempt
	}
	return nil
}

// checkReader holds what a reader saw against the chain, the result and what the model should have said.
func checkReader(c *call, chain *bus.Chain, result *schemas.Result) error {
	stored, err := text(chain)
	switch {
	case err != nil:
		return err
	case c.text.String() != stored:
		return fmt.Errorf("the reader saw %q, the chain holds %q", c.text.String(), stored)
	case c.code == "" && (result.Status != schemas.StatusCompleted || c.finish == ""):
		return fmt.Errorf("the reader was shown a whole answer, but the result is %s and the finish reason %q", result.Status, c.finish)
	case c.code != "" && result.Status == schemas.StatusCompleted:
		return fmt.Errorf("the reader was told %s, but the result is completed", c.code)
	case c.code != "" && (c.code != schemas.CodeUpstreamInterrupted || !c.final || c.same || c.seen.Load() == 0):
		return fmt.Errorf("a request that can be gone on with ended in %s after %d events", c.code, c.seen.Load())
	case c.code == "" && c.same && c.text.String() != c.want:
		return fmt.Errorf("the answer is %q, want %q", c.text.String(), c.want)
	case !c.same && !strings.HasPrefix(c.want, withoutFirst(c.text.String())):
		return fmt.Errorf("the answer is %q, want %q but for its first word: it holds pieces of two", c.text.String(), c.want)
	}
	return nil
}

// withoutFirst is an answer without the word by which it differs from all others, wherever it comes again.
func withoutFirst(answer string) string {
	first, _, _ := strings.Cut(answer, " ")
	return strings.ReplaceAll(answer, first+" ", "")
}

func text(chain *bus.Chain) (string, error) {
	var all strings.Builder
	var chunk openai.Chunk
	for _, event := range chain.Events() {
		if err := chunk.Peek(event); err != nil {
			return "", err
		}
		for _, choice := range chunk.Choices {
			all.WriteString(choice.Content)
		}
	}
	return all.String(), nil
}

func describe(chain *bus.Chain) string {
	var all strings.Builder
	for _, f := range chain.Frames {
		fmt.Fprintf(&all, "  %d %s %s", f.Sequence, f.Time.Format(time.StampMicro), f.Header())
		if f.Start != nil && f.Start.Leader != "" {
			fmt.Fprintf(&all, " follows %s", f.Start.Leader)
		}
		all.WriteByte('\n')
	}
	return all.String()
}

// checkStore waits until the database has a row for every request, stops everything, and checks that it has exactly one. A
// result may wait on the bus for a cluster that is electing its leaders.
func checkStore(ctx context.Context, c *cluster, calls []*call, report *report) error {
	database := filepath.Join(c.work, "weir.db")
	_, missing := await(ctx, func(ctx context.Context) (map[string]int, error) { return countAll(ctx, database, calls) })
	if err := errors.Join(missing, c.stopAll()); err != nil {
		return fmt.Errorf("%s: %w", c.layout, err)
	}
	rows, err := countRows(ctx, database)
	if err != nil {
		return err
	}
	for _, call := range calls {
		if n := rows[call.id]; n != 1 {
			return fmt.Errorf("%s: the database holds %d records of %s, want exactly 1", c.layout, n, call.id)
		}
	}
	fmt.Fprintf(report.out, "%s: the database holds exactly one record of each of %d requests\n", c.layout, len(calls))
	return nil
}

// report prints the matrix as it grows.
type report struct {
	out   io.Writer
	total tally
	cells int
}

func (r *report) add(layout, victim, moment string, t tally) {
	if r.cells == 0 {
		fmt.Fprintln(r.out, "| layout | victim | moment | requests | whole | ended by an error | resumed reads | taken over |\n|---|---|---|---|---|---|---|---|")
	}
	r.cells++
	fmt.Fprintf(r.out, "| %s | %s | %s | %d | %d | %d | %d | %d |\n", layout, victim, moment, t.requests, t.whole, t.failed, t.resumes, t.takenOver)
	r.total.requests += t.requests
	r.total.whole += t.whole
	r.total.failed += t.failed
}

func (r *report) close() error {
	fmt.Fprintf(r.out, "%d cells, %d requests: %d whole, %d ended by an explicit error, 0 lost, 0 silently short\n", r.cells, r.total.requests, r.total.whole, r.total.failed)
	return nil
}

// countAll counts as countRows does, and fails while a call has no record.
func countAll(ctx context.Context, path string, calls []*call) (map[string]int, error) {
	rows, err := countRows(ctx, path)
	for _, call := range calls {
		if err == nil && rows[call.id] == 0 {
			err = fmt.Errorf("the database holds no record of %s", call.id)
		}
	}
	return rows, err
}

// countRows counts the records of each request in a database.
func countRows(ctx context.Context, path string) (rows map[string]int, err error) {
	store, err := sqlite.Open(ctx, sqlite.Config{Path: path, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	rows = map[string]int{}
	for result, err := range store.List(ctx, sink.Query{}) {
		if err != nil {
			return nil, err
		}
		rows[result.RequestID]++
	}
	return rows, nil
}
