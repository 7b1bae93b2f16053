package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		GroupID: groupConfig,
		Short:   "Check a configuration file",
		Long:    "Checks a configuration file, with the environment that is set, and says what is wrong where.",
		Args:    arguments(1, 1, "one file"),
		RunE:    func(_ *cobra.Command, args []string) error { return c.check(args[0]) },
	}
}

// checked is what check prints with --json.
type checked struct {
	File    string `json:"file"`
	Valid   bool   `json:"valid"`
	At      string `json:"at,omitempty"`
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem,omitempty"`
	Next    string `json:"next,omitempty"`
}

func (c *cli) check(file string) error {
	cfg, err := loadConfig(file, c.env, nil)
	if c.json {
		report := checked{File: file, Valid: err == nil}
		if e, ok := errors.AsType[*configError](err); ok {
			report.At, report.Key, report.Problem, report.Next = e.At, e.Key, e.Problem, e.Next
		}
		return errors.Join(json.NewEncoder(c.stdout).Encode(report), err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s is valid: %s, %s\n", file, count(len(cfg.Models), "model"), count(len(cfg.Keys), "key"))
	return nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
