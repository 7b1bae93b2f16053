package inference

import "log/slog"

const hidden = "***"

// Secret is a credential that shows as *** wherever it is printed, logged or encoded, so that only code that asks for it
// by name gets it.
type Secret string

// Reveal returns the credential.
func (s Secret) Reveal() string { return string(s) }

// String hides the credential; an empty one stays empty, so that a missing key can be seen.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the credential from %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// LogValue hides the credential from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the credential from JSON and other encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML hides the credential from the printed configuration.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
