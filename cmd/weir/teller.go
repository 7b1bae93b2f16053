package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// teller writes a story, frame by frame.
type teller struct {
	out   io.Writer
	story *story
	chunk openai.Chunk
}

func (t *teller) title() error {
	text := t.story.id.String()
	if r := t.story.result; r != nil {
		text += fmt.Sprintf("  %s  %s  accepted %s", r.Model, r.Status, r.Accepted.Local().Format(time.RFC3339))
	} else {
		text += "  still running"
	}
	how := "frame by frame"
	if t.story.source() == sourceEvents {
		how = "event by event"
	}
	_, err := fmt.Fprintf(t.out, "%s  (%s)\n", visible(text), how)
	return err
}

// tell writes a line for people: when, what, and the content that a reader saw.
func (t *teller) tell(f *schemas.Frame) error {
	line := fmt.Sprintf("%+9.3fs  %-8s", f.Time.Sub(t.story.begin()).Seconds(), f.Kind)
	switch f.Kind {
	case schemas.KindStart:
		line += fmt.Sprintf("  attempt %d, %s, on %s", f.Attempt, f.Start.Mode, f.Start.Worker)
	case schemas.KindDelta:
		line += "  " + events(f)
		if f.Count > 0 {
			line += fmt.Sprintf("  %q", t.content(f))
		}
	case schemas.KindEnd:
		if f.Count > 0 {
			line += fmt.Sprintf("  %q", t.content(f))
		}
		line += t.summary(f)
	case schemas.KindError:
		if e, err := schemas.DecodeError(f.Data); err == nil {
			line += fmt.Sprintf("  %s: %s", e.Code, e.Message)
		} else if r := t.story.result; r != nil {
			line += "  " + string(r.Status) // such as deleted, which is no error of anybody's
		}
	}
	_, err := fmt.Fprintln(t.out, visible(line))
	return err
}

func events(f *schemas.Frame) string {
	if f.Count == 0 {
		return "handed back"
	}
	if f.Count == 1 {
		return fmt.Sprintf("event %d", f.Index)
	}
	return fmt.Sprintf("events %d-%d", f.Index, f.Next()-1)
}

// content is the text that a frame's events carry. With several choices they come one after the other, as they were sent.
func (t *teller) content(f *schemas.Frame) string {
	var text strings.Builder
	for _, event := range f.Events() {
		if t.chunk.Peek(event) != nil {
			continue
		}
		if !t.chunk.HasChoices() {
			text.WriteString(anthropic.Text(event))
		}
		for _, choice := range t.chunk.Choices {
			text.WriteString(choice.Reasoning + choice.Content + choice.Refusal + choice.ToolCalls)
		}
	}
	return text.String()
}

func (t *teller) summary(f *schemas.Frame) string {
	data := f.Data
	if f.Count > 0 {
		data = f.Summary
	}
	s, err := schemas.DecodeSummary(data)
	if err != nil {
		return ""
	}
	line := "  " + string(s.Status)
	if len(s.FinishReasons) > 0 {
		line += " (" + strings.Join(s.FinishReasons, ", ") + ")"
	}
	if s.Usage != nil {
		line += fmt.Sprintf(", %d+%d tokens", s.Usage.PromptTokens, s.Usage.CompletionTokens)
	}
	if s.Attempts > 1 {
		line += fmt.Sprintf(", %d attempts", s.Attempts)
	}
	return line
}

// told is a frame as --json shows it. Events follow as they were stored, byte for byte.
type told struct {
	Tenant   string          `json:"tenant"`
	Request  string          `json:"request_id"`
	Source   string          `json:"source"`
	Kind     schemas.Kind    `json:"kind"`
	Sequence uint64          `json:"sequence,omitempty"`
	Time     time.Time       `json:"time"`
	Attempt  int             `json:"attempt"`
	Writer   string          `json:"writer,omitempty"`
	Index    uint64          `json:"index"`
	Count    int             `json:"count"`
	Mode     schemas.Mode    `json:"mode,omitempty"`
	Work     uint64          `json:"work,omitempty"`
	Dispatch int             `json:"dispatch,omitempty"`
	Worker   string          `json:"worker,omitempty"`
	Summary  json.RawMessage `json:"summary,omitempty"`
	Error    json.RawMessage `json:"error,omitempty"`
}

func (t *teller) tellJSON(f *schemas.Frame) error {
	line := told{
		Tenant: t.story.id.Tenant, Request: t.story.id.Request, Source: t.story.source(), Kind: f.Kind, Sequence: f.Sequence,
		Time: f.Time.UTC(), Attempt: f.Attempt, Writer: f.Writer, Index: f.Index, Count: f.Count, Summary: f.Summary,
	}
	if f.Start != nil {
		line.Mode, line.Work, line.Dispatch, line.Worker = f.Start.Mode, f.Start.Work, f.Start.Dispatch, f.Start.Worker
	}
	switch {
	case f.Kind == schemas.KindEnd && f.Count == 0:
		line.Summary = f.Data
	case f.Kind == schemas.KindError:
		line.Error = f.Data
	}
	return writeFrame(t.out, line, f)
}

// writeFrame adds the events to the object as they are: the encoder would change their white space.
func writeFrame(w io.Writer, line told, f *schemas.Frame) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(line); err != nil {
		return fmt.Errorf("show frame %d of %s: %w", f.Index, line.Request, err)
	}
	if f.Count > 0 {
		b.Truncate(b.Len() - len("}\n"))
		b.WriteString(`,"events":[`)
		for i, event := range f.Events() {
			if i > f.Index {
				b.WriteByte(',')
			}
			b.Write(event)
		}
		b.WriteString("]}\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}
