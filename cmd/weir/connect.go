package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/internal/bus"
)

// client connects a command that sends requests or follows results.
func (c *cli) client(ctx context.Context, cfg *Config, command string) (*client.Client, error) {
	to := busConfig(reachable(cfg), "weir-"+command)
	return client.Connect(ctx, client.Config{
		URL: to.URL, Username: to.Username, Password: to.Password, Context: to.Context, CredsFile: to.CredsFile, Name: to.Name,
		CAFile: to.CAFile, CertFile: to.CertFile, KeyFile: to.KeyFile, Logger: c.warnings(),
	})
}

// log connects a command that reads the log itself.
func (c *cli) log(ctx context.Context, cfg *Config, command string) (*bus.Bus, error) {
	to := busConfig(reachable(cfg), "weir-"+command)
	to.Logger = c.warnings()
	return bus.Connect(ctx, to)
}

// warnings tells the user what is left out of what is shown, and why nothing comes.
func (c *cli) warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// reachable is the configuration with the operator's context that serve left in the data directory, when nobody named a
// server or credentials: so ask, tail and replay find the serve that was started in the same place, whatever its port.
func reachable(cfg *Config) *Config {
	if cfg.NATS != defaultConfig().NATS || cfg.Context != "" || cfg.Creds != "" {
		return cfg
	}
	file, err := filepath.Abs(filepath.Join(cfg.DataDir, "nats", "context", "weir.json"))
	if err != nil {
		return cfg
	}
	if _, err := os.Stat(file); err != nil {
		return cfg
	}
	found := *cfg
	found.Context = file
	return &found
}
