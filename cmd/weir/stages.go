package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/internal/telemetry"
)

// Names of the commands that run stages, and of the stages.
const (
	cmdServe     = "serve"
	cmdIngest    = "ingest"
	cmdRouter    = "router"
	cmdInference = "inference"
	cmdSink      = "sink"
)

// flow is every stage in the order of the flow, which is the order of stopping.
func flow() []string { return []string{cmdIngest, cmdRouter, cmdInference, cmdSink} }

// stageCommand runs stages until it is told to stop.
func (c *cli) stageCommand(name, short, long string, stages ...string) *cobra.Command {
	return &cobra.Command{
		Use: name, GroupID: groupRun, Short: short, Long: long, Args: arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runStages(cmd.Context(), name, stages) },
	}
}

func (c *cli) runStages(ctx context.Context, command string, stages []string) (err error) {
	follows := c.follower(command)
	cfg, found := follows.load()
	if err := found.err(); err != nil {
		return err
	}
	log, err := c.logger(cfg)
	if err != nil {
		return err
	}
	found.warn(log)
	defer tuneMemory(ctx, c.env)()
	n, err := openNode(ctx, cfg, command, log)
	if err != nil {
		return startError(ctx, err)
	}
	defer func() { err = errors.Join(err, n.close()) }()
	n.openLive(ctx, follows, slices.Contains(stages, cmdInference))
	if slices.Contains(stages, cmdIngest) {
		if err := n.openKeys(ctx, command == cmdServe); err != nil {
			return startError(ctx, err)
		}
	}
	parts, err := n.parts(stages)
	if err != nil {
		return startError(ctx, err)
	}
	door, err := n.openAdmin(ctx)
	if err != nil {
		return err
	}
	c.announce(n, command, door, log)
	return runParts(ctx, parts, time.Duration(cfg.DrainTimeout), log)
}

// startError is nil when the command was told to stop before it had started.
func startError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// parts constructs stages against the flow, so that each finds the next one there, and gives them in the order of the flow.
func (n *node) parts(stages []string) ([]part, error) {
	constructors := map[string]func(alone bool) (part, error){
		cmdIngest: n.ingest, cmdRouter: n.router, cmdInference: n.inference, cmdSink: n.sink,
	}
	var parts []part
	for _, stage := range slices.Backward(stages) {
		p, err := constructors[stage](len(stages) == 1)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	slices.Reverse(parts)
	return parts, nil
}

// openAdmin serves the operator's door until the node is closed. It is the last to go, so that a drain can be watched.
func (n *node) openAdmin(ctx context.Context) (address string, err error) {
	if n.cfg.Admin == off {
		return off, nil
	}
	ready := func(asked context.Context) error {
		if ctx.Err() != nil {
			return errors.New("stopping")
		}
		return n.ready(asked)
	}
	a, err := startAdmin(n.cfg.Admin, n.registry, ready, n.log)
	if err != nil {
		return "", err
	}
	n.closers = slices.Insert(n.closers, 0, a.close)
	return a.address(), nil
}

// announce says that the process is ready and where, in one line.
func (c *cli) announce(n *node, command, admin string, log *slog.Logger) {
	nats := redactUser(n.cfg.NATS)
	if n.nats != nil {
		nats = n.nats.ClientURL()
	} else if n.cfg.Context != "" {
		nats = "context " + n.cfg.Context
	}
	if c.json {
		log.Info("ready", "command", command, "http", n.httpAddress, "nats", nats, "admin", admin, "name", n.name)
		return
	}
	line := "weir " + command + " is ready:"
	if n.httpAddress != "" {
		line += " " + n.cfg.httpScheme() + "://" + n.httpAddress
	}
	line += " " + nats
	if admin != off {
		line += " admin http://" + admin
	}
	fmt.Fprintln(c.stderr, line)
}

func (c *cli) logger(cfg *Config) (*slog.Logger, error) {
	format := "text"
	if c.json {
		format = "json"
	}
	return telemetry.NewLogger(c.stderr, format, cfg.LogLevel)
}

// version is what the module was built as.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
