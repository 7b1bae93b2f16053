package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// purgeTimeout bounds a purge of the cache.
const purgeTimeout = 30 * time.Second

func (c *cli) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cache",
		GroupID: groupUse,
		Short:   "Remove answers from the cache",
		Args:    func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) },
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.cachePurgeCommand())
	return cmd
}

func (c *cli) cachePurgeCommand() *cobra.Command {
	var tenant, namespace string
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Remove all cached answers of a tenant, or those of one namespace",
		Long: `Removes the cached answers of a tenant from the stream LLM_CACHE and, within a second,
from the memory of every router. With --namespace it is only those under a namespace,
as Llm-Cache-Namespace or the configuration names it. What is being answered meanwhile
is not kept.`,
		Example: "  weir cache purge --tenant acme\n  weir cache purge --tenant acme --namespace user-17",
		Args:    arguments(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tenant == "" {
				return usageError{errors.New("--tenant says whose answers to remove: name one"), cmd.CommandPath()}
			}
			if cmd.Flags().Changed("namespace") && namespace == "" {
				return usageError{errors.New("--namespace is empty: name one, or leave it out for all answers of the tenant"), cmd.CommandPath()}
			}
			return c.purgeCache(cmd.Context(), tenant, namespace)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "`tenant` whose answers are removed")
	cmd.Flags().StringVar(&namespace, "namespace", "", "only those under this `namespace`")
	return cmd
}

func (c *cli) purgeCache(ctx context.Context, tenant, namespace string) error {
	if err := errors.Join(schemas.ValidateTenant(tenant), schemas.ValidateCacheNamespace(namespace)); err != nil {
		return err
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	b, err := c.log(ctx, cfg, "cache")
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	token := ""
	if namespace != "" {
		token = cache.NamespaceToken(namespace)
	}
	removed, err := b.PurgeCache(ctx, tenant, token)
	if err != nil {
		return err
	}
	if c.json {
		_, err = fmt.Fprintf(c.stdout, "{\"purged\":true,\"tenant\":%q,\"namespace\":%q,\"removed\":%d}\n", tenant, namespace, removed)
		return err
	}
	_, err = fmt.Fprintln(c.stdout, purged(tenant, namespace, removed))
	return err
}

// purged says what a purge did.
func purged(tenant, namespace string, removed uint64) string {
	whose := "tenant " + tenant
	if namespace != "" {
		whose = fmt.Sprintf("namespace %q of tenant %s", namespace, tenant)
	}
	switch removed {
	case 0:
		return "there was no cached answer of " + whose + " to remove; what is being answered now is not kept"
	case 1:
		return "removed 1 cached answer of " + whose
	}
	return fmt.Sprintf("removed %d cached answers of %s", removed, whose)
}
