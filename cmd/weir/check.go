package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		GroupID: groupConfig,
		Short:   "Check a configuration file",
		Long: `Checks a configuration file, with the environment that is set, and says of everything
that is wrong, at once, where it is and what to do. What works and is hardly meant is a
warning, with which the file is valid.`,
		Args: arguments(1, 1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error { return c.check(args[0]) },
	}
}

// checked is what check prints with --json.
type checked struct {
	File     string    `json:"file"`
	Valid    bool      `json:"valid"`
	Mistakes []finding `json:"mistakes"`
	Warnings []finding `json:"warnings"`
}

type finding struct {
	At      string `json:"at,omitempty"`
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem"`
	Next    string `json:"next,omitempty"`
}

func (c *cli) check(file string) error {
	cfg, found := readConfig(file, c.env, nil)
	cfg.checkAnywhere(found, time.Now())
	err := found.err()
	if c.json {
		report := checked{File: file, Valid: err == nil, Mistakes: listed(found.mistakes), Warnings: listed(found.warnings)}
		return errors.Join(json.NewEncoder(c.stdout).Encode(report), err)
	}
	for _, w := range found.warnings {
		fmt.Fprintf(c.stdout, "warning: %s\n", w.text())
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s is valid: %s, %s\n", file, count(len(cfg.Models), "model"), count(len(cfg.Keys), "key"))
	return nil
}

// checkAnywhere notes what may be wrong in one of the processes that could read the configuration.
func (c *Config) checkAnywhere(f *findings, now time.Time) {
	c.checkOdd(f, now)
	c.checkKeyless(f)
	served := &findings{from: f.from}
	c.checkServed(served)
	for _, e := range served.mistakes {
		f.odd(e.Key, e.Next, "weir serve refuses it: %s", e.Problem)
	}
	inOrder(f.warnings)
}

func listed(all []*configError) []finding {
	list := make([]finding, len(all))
	for i, e := range all {
		list[i] = finding{e.At, e.Key, e.Problem, e.Next}
	}
	return list
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
