package main

import "github.com/spf13/cobra"

func (c *cli) routerCommand() *cobra.Command {
	return c.stageCommand(cmdRouter, "Run the router alone",
		"Decides whether a request runs and when. Any number may run; each partition has one at a time.", cmdRouter)
}
