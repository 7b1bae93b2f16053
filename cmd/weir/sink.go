package main

import "github.com/spf13/cobra"

func (c *cli) sinkCommand() *cobra.Command {
	return c.stageCommand(cmdSink, "Run the sink alone",
		"Keeps results in the database. One process writes a SQLite file.", cmdSink)
}
