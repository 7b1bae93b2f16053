package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// configError says what is wrong with which key and what to do next.
type configError struct {
	At      string // where the value comes from: file:line, a variable or a flag; empty when it was not given
	Key     string // such as models.gpt-4.backends[0].url
	Problem string
	Next    string

	line int
}

func (e *configError) Error() string { return "configuration: " + e.text() }

// text is the error without saying that it is about the configuration.
func (e *configError) text() string {
	var text strings.Builder
	for _, part := range []string{e.At, e.Key} {
		if part != "" {
			text.WriteString(part + ": ")
		}
	}
	text.WriteString(e.Problem)
	if e.Next != "" {
		text.WriteString("; " + e.Next)
	}
	return text.String()
}

// configErrors are several mistakes of one configuration, in the order of the file.
type configErrors []*configError

func (all configErrors) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "the configuration has %d mistakes:", len(all))
	for _, e := range all {
		text.WriteString("\n  " + e.text())
	}
	return text.String()
}

func (all configErrors) Unwrap() []error {
	errs := make([]error, len(all))
	for i, e := range all {
		errs[i] = e
	}
	return errs
}

// origin is where a value was given.
type origin struct {
	text string // file:line, a variable or a flag
	line int    // 0 when it was not in the file
}

// origins says for a key where its value was given, so that a check that runs later can still name the line.
type origins map[string]origin

// of is the place of the key, or of the nearest key above it.
func (o origins) of(key string) origin {
	for key != "" {
		if at, ok := o[key]; ok {
			return at
		}
		key = above(key)
	}
	return origin{}
}

// above is the key that holds another; empty for one that stands on its own.
func above(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// findings are what is wrong with a configuration, all of it at once, and what is odd about it but works.
type findings struct {
	from     origins
	mistakes []*configError
	warnings []*configError

	unread []string // keys whose values could not be read, of which nothing else can be said
}

func newFindings() *findings { return &findings{from: origins{}} }

// wrongAt notes a mistake at a place.
func (f *findings) wrongAt(at origin, key, next, format string, args ...any) {
	f.mistakes = append(f.mistakes, &configError{At: at.text, line: at.line, Key: key, Next: next, Problem: fmt.Sprintf(format, args...)})
}

// unreadable notes a value that could not be read.
func (f *findings) unreadable(at origin, key, next, format string, args ...any) {
	f.wrongAt(at, key, next, format, args...)
	f.unread = append(f.unread, key)
}

// wrong notes a mistake. One that may only follow from a value that could not be read is left out.
func (f *findings) wrong(key, next, format string, args ...any) {
	if !f.follows(key) {
		f.mistakes = append(f.mistakes, f.found(key, next, format, args...))
	}
}

// when notes a mistake if there is one, and reports whether there is.
func (f *findings) when(bad bool, key, next, format string, args ...any) bool {
	if bad {
		f.wrong(key, next, format, args...)
	}
	return bad
}

// odd notes what works and is hardly meant.
func (f *findings) odd(key, next, format string, args ...any) {
	if !f.follows(key) {
		f.warnings = append(f.warnings, f.found(key, next, format, args...))
	}
}

func (f *findings) found(key, next, format string, args ...any) *configError {
	at := f.from.of(key)
	return &configError{At: at.text, line: at.line, Key: key, Next: next, Problem: fmt.Sprintf(format, args...)}
}

// follows reports whether what is found at a key may only follow from a value that could not be read: its own, the one
// that holds it, or one that it holds.
func (f *findings) follows(key string) bool {
	return slices.ContainsFunc(f.unread, func(unread string) bool {
		return unread == key || strings.HasPrefix(key, unread+".") || strings.HasPrefix(key, unread+"[") || above(unread) == key
	})
}

// err is nil when there is no mistake.
func (f *findings) err() error {
	inOrder(f.mistakes)
	switch len(f.mistakes) {
	case 0:
		return nil
	case 1:
		return f.mistakes[0]
	}
	return configErrors(f.mistakes)
}

// warn logs what is odd.
func (f *findings) warn(log *slog.Logger) {
	for _, w := range f.warnings {
		log.Warn("the configuration holds what is hardly meant", "at", w.At, "key", w.Key, "problem", w.Problem, "next", w.Next)
	}
}

// inOrder sorts by line. What is not in the file keeps its order and comes first.
func inOrder(all []*configError) {
	slices.SortStableFunc(all, func(a, b *configError) int { return a.line - b.line })
}
