package main

import "github.com/spf13/cobra"

func (c *cli) ingestCommand() *cobra.Command {
	return c.stageCommand(cmdIngest, "Run the HTTP door alone",
		"Turns HTTP requests into requests on the bus, and their frames back into answers.", cmdIngest)
}
