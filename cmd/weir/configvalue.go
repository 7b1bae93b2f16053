package main

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// configError says what is wrong with which key and what to do next.
type configError struct {
	At      string // where the value comes from: file:line, a variable or a flag; empty when it was not given
	Key     string // such as models.gpt-4.backends[0].url
	Problem string
	Next    string
}

func (e *configError) Error() string {
	var text strings.Builder
	text.WriteString("configuration: ")
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

// origins says for a key where its value was given, so that a check that runs later can still name the line.
type origins map[string]string

// of is the place of the key, or of the nearest key above it.
func (o origins) of(key string) string {
	for key != "" {
		if at, ok := o[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return ""
}

// Duration is a time.Duration that is written with its unit. A bare number is refused: it would mean nanoseconds.
type Duration time.Duration

// UnmarshalYAML reads 200ms, 30s or 5m.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	v, err := time.ParseDuration(node.Value)
	if err != nil || node.Kind != yaml.ScalarNode || v < 0 || v == 0 && node.Value == "0" {
		return fmt.Errorf("%q is not a duration; write a number with its unit, such as 200ms, 30s or 5m", node.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes 5m, not 5m0s.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
