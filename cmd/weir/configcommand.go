package main

import (
	"bytes"
	"encoding/json"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func (c *cli) configCommand() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: groupConfig,
		Short:   "Print the effective configuration",
		Long: `Prints the configuration that the other commands would run with, from the file, the
environment (WEIR_HTTP for http and so on) and the flags, in this order. Secrets are
shown as ***.`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			if schema {
				return c.printJSON(configSchema())
			}
			return c.printConfig()
		},
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the configuration file instead, for editors")
	return cmd
}

func (c *cli) printConfig() error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	cfg.NATS, cfg.Telemetry.OTLPEndpoint = redactUser(cfg.NATS), redactUser(cfg.Telemetry.OTLPEndpoint)
	for _, model := range cfg.Models {
		for i := range model.Backends {
			model.Backends[i].URL = redactUser(model.Backends[i].URL)
		}
	}
	var data bytes.Buffer
	encoder := yaml.NewEncoder(&data)
	encoder.SetIndent(2)
	if err := encoder.Encode(cfg); err != nil {
		return err
	}
	if c.json {
		var plain map[string]any
		if err := yaml.Unmarshal(data.Bytes(), &plain); err != nil {
			return err
		}
		return json.NewEncoder(c.stdout).Encode(plain)
	}
	_, err = data.WriteTo(c.stdout)
	return err
}

func (c *cli) printJSON(v any) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
