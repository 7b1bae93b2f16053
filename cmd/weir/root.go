package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// cli is what a command gets from the outside, and nothing else: tests run the program in their own process.
type cli struct {
	env            map[string]string
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       bool // stdout is one

	configFile string
	json       bool
	common     *pflag.FlagSet
}

// run is the program. It returns when the command is done, or drained after ctx has ended.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := &cli{env: environment(env), stdin: stdin, stdout: stdout, stderr: stderr, terminal: isTerminal(stdout)}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// exitCode is 0 when all went well, 2 when the command was called wrongly, 130 after Ctrl-C, and 1 when it failed.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	if errors.Is(err, errCancelled) {
		return 130 // as the shell says of a command that Ctrl-C ended
	}
	return 1
}

// usageError is a mistake in how the command was called.
type usageError struct {
	err     error
	command string
}

func (e usageError) Error() string {
	return fmt.Sprintf("%v; see %s --help", e.err, e.command)
}

func (e usageError) Unwrap() error { return e.err }

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:     "weir",
		Version: version(),
		Short:   "LLM inference over NATS JetStream: a published request becomes a durable, resumable answer",
		Long: `Weir turns a published request into a durable, resumable answer.

With no configuration at all, weir serve runs everything in one process, with the
built-in echo model, for this machine only.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{flagError(err), cmd.CommandPath()} })
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupUse, Title: "Use:"},
		&cobra.Group{ID: groupConfig, Title: "Configure:"},
	)
	root.SetHelpCommand(helpCommand(root))
	c.addCommonFlags(root.PersistentFlags())
	root.AddCommand(
		c.serveCommand(), c.ingestCommand(), c.routerCommand(), c.inferenceCommand(), c.sinkCommand(),
		c.askCommand(), c.tailCommand(), c.topCommand(), c.usageCommand(), c.replayCommand(), c.keysCommand(), c.cacheCommand(),
		c.configCommand(), c.checkCommand(),
	)
	return root
}

const (
	groupRun    = "run"
	groupUse    = "use"
	groupConfig = "config"
)

func (c *cli) addCommonFlags(flags *pflag.FlagSet) {
	d := defaultConfig()
	flags.StringVar(&c.configFile, "config", "", "configuration `file` (YAML)")
	flags.String("nats", d.NATS, "NATS `server` to connect to; for serve, the address the embedded one listens on, or a nats:// URL")
	flags.String("context", "", "`name` or file of a nats CLI context to connect with")
	flags.String("creds", "", "NATS credentials `file`")
	flags.String("data-dir", d.DataDir, "`directory` of the embedded NATS server and of the database")
	flags.String("http", d.HTTP, "`address` of the HTTP door")
	flags.String("admin", d.Admin, "`address` of /livez, /readyz, /metrics and /debug/pprof, or off")
	flags.String("log-level", d.LogLevel, "debug, info, warn or error")
	flags.BoolVar(&c.json, "json", false, "results and logs as JSON, one object per line")
	c.common = flags
}

// config is the effective configuration: file < environment < flag.
func (c *cli) config() (*Config, error) {
	cfg, found := c.read()
	return cfg, found.err()
}

// read is the effective configuration, with everything that was found in it.
func (c *cli) read() (*Config, *findings) {
	given := map[string]string{}
	c.common.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			given[f.Name] = f.Value.String()
		}
	})
	return readConfig(c.file(), c.env, given)
}

// file is the configuration file, or empty when there is none.
func (c *cli) file() string {
	if c.configFile != "" {
		return c.configFile
	}
	return c.env[envPrefix+"CONFIG"]
}

func environment(env []string) map[string]string {
	all := make(map[string]string, len(env))
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			all[name] = value
		}
	}
	return all
}

// arguments checks the number of arguments and says what they are.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError{fmt.Errorf("%s takes %s, not %s", cmd.CommandPath(), what, count(len(args), "argument")), cmd.CommandPath()}
		}
		return nil
	}
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("there is no command %q", args[0])
	if meant := commandLike(cmd, args[0]); meant != "" {
		err = fmt.Errorf("there is no command %q: did you mean %s?", args[0], meant)
	}
	return usageError{err, cmd.CommandPath()}
}

// commandLike is the command that was probably meant: one whose name is a slip away, or begins so.
func commandLike(cmd *cobra.Command, name string) (meant string) {
	slips := max(len(name)/3, 1) + 1
	for _, other := range cmd.Commands() {
		if other.Hidden {
			continue
		}
		distance := editDistance(name, other.Name())
		if strings.HasPrefix(other.Name(), name) {
			distance = 0
		}
		if distance < slips {
			meant, slips = other.Name(), distance
		}
	}
	return meant
}

// helpCommand is weir help, for who does not think of --help.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about a command", GroupID: groupConfig,
		RunE: func(_ *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, args)
			}
			found.InitDefaultHelpFlag() // these only the command that runs has
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}

// flagError says of a value that is no time how one is written.
func flagError(err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok && invalid.GetFlag().Value.Type() == "duration" {
		return fmt.Errorf("--%s %q is no time: write a number with its unit, such as 30m or 24h", invalid.GetFlag().Name, invalid.GetValue())
	}
	return err
}
