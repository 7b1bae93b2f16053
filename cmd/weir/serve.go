package main

import "github.com/spf13/cobra"

func (c *cli) serveCommand() *cobra.Command {
	return c.stageCommand(cmdServe, "Run everything in one process",
		`Runs ingest, router, inference and sink in one process, with an embedded NATS server
whose store is in --data-dir. With a nats:// URL in --nats, or with --context, that
server is used instead.

Without API keys the doors are open on loopback only, as tenant default.
A first signal drains within drain_timeout; a second one ends at once. Whatever is
killed, the next start over the same --data-dir goes on with it.`, flow()...)
}
