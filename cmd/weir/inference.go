package main

import "github.com/spf13/cobra"

func (c *cli) inferenceCommand() *cobra.Command {
	return c.stageCommand(cmdInference, "Run a worker alone",
		"Takes work for the configured models and calls their backends.", cmdInference)
}
