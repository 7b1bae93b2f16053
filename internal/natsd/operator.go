package natsd

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// cliContext is the part of a nats CLI context that the operator needs.
type cliContext struct {
	Description string `json:"description"`
	URL         string `json:"url"`
	User        string `json:"user"`
	Password    string `json:"password"`
	CA          string `json:"ca,omitempty"`
	Cert        string `json:"cert,omitempty"`
	Key         string `json:"key,omitempty"`
}

// contextPath is laid out like ~/.config, so that both `nats --context <file>` and
// `XDG_CONFIG_HOME=<data dir> nats --context weir` find it.
func contextPath(dir string) string { return filepath.Join(dir, "nats", "context", "weir.json") }

// readOperator returns the password of the operator's user: the one in the context file, which outlives restarts, or a
// new one.
func readOperator(dir string) (password string, err error) {
	b, err := os.ReadFile(contextPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return rand.Text(), nil
	}
	if err != nil {
		return "", fmt.Errorf("read the operator's nats context: %w", err)
	}
	var c cliContext
	if err := json.Unmarshal(b, &c); err != nil || c.User != operatorUser || c.Password == "" {
		return "", fmt.Errorf("%s is not a context that Weir wrote: remove it, and a new one is made", contextPath(dir))
	}
	return c.Password, nil
}

// writeOperator writes the context with the address of this start.
func writeOperator(cfg Config, url, password string) (path string, err error) {
	path = contextPath(cfg.Dir)
	if err := os.MkdirAll(filepath.Dir(path), directoryPerms); err != nil {
		return "", fmt.Errorf("make the folder of the operator's nats context: %w", err)
	}
	c, err := cfg.TLS.cliContext(cliContext{
		Description: "Operator of this Weir: account LLM, with JetStream", URL: url, User: operatorUser, Password: password,
	})
	if err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return "", fmt.Errorf("write the operator's nats context: %w", err)
	}
	return filepath.Abs(path)
}
