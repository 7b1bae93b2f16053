package main

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

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
