package main

import "github.com/spf13/cobra"

func (c *cli) ingestCommand() *cobra.Command {
	return c.stageCommand(cmdIngest, "Run the doors alone, HTTP and NATS",
		"Turns requests that come over HTTP, or from tenants on NATS, into requests on the bus, and their frames back into answers.", cmdIngest)
}
