package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/internal/callout"
	"github.com/weir-llm/weir/internal/keys"
)

// keysTimeout bounds a command about keys.
const keysTimeout = 30 * time.Second

func (c *cli) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "keys",
		GroupID: groupUse,
		Short:   "Create, list and revoke API keys",
		Long: `API keys are kept on NATS, hashed, and work in every process within a second of
their creation. One key opens HTTP, as Authorization: Bearer or x-api-key, and NATS, as
the token of a connection. The first key ends open access on loopback for good.`,
		Args: func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.keysCreateCommand(), c.keysListCommand(), c.keysRevokeCommand(), c.keysIssuerCommand())
	return cmd
}

// keyFlags are those of weir keys create.
type keyFlags struct {
	id, tenant, scope, expires string
	models                     []string
}

func (c *cli) keysCreateCommand() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create an API key, or a second secret for one",
		Long: `Creates a key and prints it, once: only its hash is kept. With --id the key of that
id gets a second secret, with the same tenant, models and scope; both work until one
is revoked or expires, so that a key can be replaced without a gap.`,
		Example: "  weir keys create --tenant acme\n  weir keys create --tenant acme --models gpt-4.1,echo --expires 2160h\n  weir keys create --id 3k9x0a7m2q1z",
		Args:    arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.id != "" && (cmd.Flags().Changed("tenant") || cmd.Flags().Changed("models") || cmd.Flags().Changed("scope")) {
				return usageError{errors.New("--id gives a key a second secret, which has the tenant, models and scope of the first: leave those out"), cmd.CommandPath()}
			}
			return c.createKey(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.id, "id", "", "`id` of a key that gets a second secret")
	cmd.Flags().StringVar(&f.tenant, "tenant", defaultTenant, "`tenant` whose requests come with the key")
	cmd.Flags().StringSliceVar(&f.models, "models", []string{keys.AllModels}, "`names` of the models it may use, or *")
	cmd.Flags().StringVar(&f.scope, "scope", string(keys.ScopeFull), "full, or audit: read streams and results, send nothing")
	cmd.Flags().StringVar(&f.expires, "expires", "", "`when` it stops working: a duration such as 720h, a day or a time")
	return cmd
}

func (c *cli) createKey(ctx context.Context, f keyFlags) error {
	expires, err := parseExpiry(f.expires, time.Now())
	if err != nil {
		return err
	}
	if len(f.models) == 0 { // such as --models "$MODELS" without MODELS
		return errors.New("--models names no model: name some, or leave it out for all")
	}
	return c.manageKeys(ctx, func(ctx context.Context, m *keys.Manager) error {
		var token keys.Token
		var record *keys.Record
		var err error
		if f.id != "" {
			token, record, err = m.Rotate(ctx, f.id, expires)
		} else {
			token, record, err = m.Create(ctx, keys.Request{Tenant: f.tenant, Models: f.models, Scope: keys.Scope(f.scope), Expires: expires})
		}
		if record == nil {
			return err
		}
		return errors.Join(c.printNewKey(token, record), err)
	})
}

func (c *cli) keysListCommand() *cobra.Command {
	var tenant string
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List API keys, without their secrets",
		Long: `Prints a line for each secret of each key that works: its id, the name of the secret,
tenant, scope, models, and when it was created and expires. With --all also those that
were revoked or have expired. Keys of configuration files are not among them.`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.listKeys(cmd.Context(), tenant, all) },
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only keys of this `tenant`")
	cmd.Flags().BoolVar(&all, "all", false, "also those that do not work any more")
	return cmd
}

func (c *cli) listKeys(ctx context.Context, tenant string, all bool) error {
	return c.manageKeys(ctx, func(ctx context.Context, m *keys.Manager) error {
		records, err := m.List(ctx)
		listed := 0
		for _, r := range records {
			if tenant != "" && r.Tenant != tenant {
				continue
			}
			listed += len(shown(r, all, time.Now()).Secrets)
			if err := c.printKey(r, all, time.Now()); err != nil {
				return err
			}
		}
		if listed == 0 && err == nil {
			fmt.Fprintln(c.stderr, "There is none: weir keys create makes one, and --all shows those that have ended too.")
		}
		return err
	})
}

func (c *cli) keysRevokeCommand() *cobra.Command {
	var secret string
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke an API key, or one of its secrets",
		Long: `Ends a key for good. Within a second no door takes it, and the streams and NATS
connections that it opened end. With --secret only that secret of the key ends.`,
		Example: "  weir keys revoke 3k9x0a7m2q1z\n  weir keys revoke 3k9x0a7m2q1z --secret 1f0c22ab",
		Args:    arguments(1, 1, "the id of one key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.manageKeys(cmd.Context(), func(ctx context.Context, m *keys.Manager) error {
				record, err := m.Revoke(ctx, args[0], secret)
				if record == nil {
					return err
				}
				return errors.Join(c.printKey(record, true, time.Now()), err)
			})
		},
	}
	cmd.Flags().StringVar(&secret, "secret", "", "`name` of the one secret to revoke, as weir keys list shows it")
	return cmd
}

func (c *cli) keysIssuerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "issuer",
		Short: "Make the key pairs of the auth callout of a NATS cluster",
		Long: `Prints new key pairs for the auth callout of external nats-servers as environment
variables: the public halves for nats.conf, the seeds for weir ingest. Nothing is
stored. The embedded server of weir serve needs none.`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			pairs, err := callout.NewPairs()
			if err != nil {
				return err
			}
			return c.printPairs(pairs)
		},
	}
}

// manageKeys connects for a command about keys.
func (c *cli) manageKeys(ctx context.Context, do func(context.Context, *keys.Manager) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	b, err := c.log(ctx, cfg, "keys")
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	return do(ctx, &keys.Manager{Bus: b, Actor: actor()})
}

// actor names who runs the command, for the event that tells what was done.
func actor() string {
	host, _ := os.Hostname()
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return strings.TrimSuffix(name+"@"+host, "@")
}

// models is a key's list for people.
func models(list []string) string { return fmt.Sprintf("models %s", strings.Join(list, ",")) }
