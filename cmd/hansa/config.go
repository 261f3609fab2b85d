package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hansa/config"
)

func newConfig() *cobra.Command {
	return family(&cobra.Command{Use: "config", Short: "The configuration: check, sample"}, newConfigCheck(), newConfigSample())
}

func newConfigCheck() *cobra.Command {
	var file string
	var p printer
	c := verb(&cobra.Command{Use: "check", Short: "Check the configuration as the server would read it, environment included",
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			if _, err := cfg.ReadDatabase(); err != nil {
				return err
			}
			out := struct {
				File    string   `json:"file"`
				Tenants []string `json:"tenants"`
			}{File: file}
			for _, t := range cfg.Tenants {
				out.Tenants = append(out.Tenants, string(t.Name))
				if _, err := t.ReadSharedSecret(); err != nil {
					return err
				}
				if _, err := t.ReadTokens(); err != nil {
					return err
				}
			}
			return p.show(c, out, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s is sound: %s.\n", file, count(len(out.Tenants), "tenant"))
			})
		}}, 0, 0, "none: reads a file")
	configFlag(c, &file)
	p.flag(c)
	return c
}

func newConfigSample() *cobra.Command {
	return verb(&cobra.Command{Use: "sample", Short: "Print a configuration with every key explained", RunE: func(c *cobra.Command, _ []string) error {
		text, err := config.Sample()
		if err == nil {
			_, err = c.OutOrStdout().Write(text)
		}
		return err
	}}, 0, 0, "none: prints a text")
}

func newVersion() *cobra.Command {
	var p printer
	c := verb(&cobra.Command{Use: "version", Short: "Print the version", RunE: func(c *cobra.Command, _ []string) error {
		return p.show(c, map[string]string{"version": version}, func(w io.Writer) { _, _ = fmt.Fprintln(w, version) })
	}}, 0, 0, "none: prints a text")
	p.flag(c)
	return c
}
