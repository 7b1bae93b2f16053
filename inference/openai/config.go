package openai

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/weir-llm/weir/inference"
)

// Config describes one model server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; up to and without /chat/completions, such as http://10.0.0.7:8000/v1
	APIKey inference.Secret // optional; sent as a bearer token

	// Model is the server's name for the model, when it differs from the public one. Empty sends the public name.
	Model string

	// MaxInFlight is how many calls run at once; the caller keeps to it, and the connection pool is sized for it. Default 32.
	MaxInFlight int

	// Deterministic is the operator's word that temperature 0 gives the same text again; see [inference.Capabilities].
	Deterministic bool

	// RequireFinishReason false accepts [DONE] alone as the end of an answer, for servers that never send a finish_reason.
	// Default true.
	RequireFinishReason *bool

	Timeouts inference.Timeouts
	Headers  map[string]string // more headers for every call, such as OpenAI-Organization
}

const defaultMaxInFlight = 32

func (c Config) withDefaults() Config {
	c.URL = strings.TrimRight(c.URL, "/")
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.RequireFinishReason == nil {
		c.RequireFinishReason = new(true)
	}
	c.Timeouts = c.Timeouts.WithDefaults()
	return c
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	if c.Name == "" {
		return errors.New("backend: name is missing: give each backend one, it stands in results and metrics")
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("backend %s: url is not an http or https address: write it like http://10.0.0.7:8000/v1", c.Name)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("backend %s: url holds credentials, a query or a fragment: use api_key and headers instead", c.Name)
	}
	if c.MaxInFlight < 0 {
		return fmt.Errorf("backend %s: max_in_flight is negative: leave it out for %d", c.Name, defaultMaxInFlight)
	}
	if err := c.Timeouts.Validate(); err != nil {
		return fmt.Errorf("backend %s: %w", c.Name, err)
	}
	for name, value := range c.Headers {
		if name == "" || strings.ContainsAny(name, " \t\r\n:") || strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("backend %s: header %q cannot be sent: check its name and that it has no line breaks", c.Name, http.CanonicalHeaderKey(name))
		}
	}
	return nil
}
