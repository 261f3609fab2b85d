package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/homeserver"
)

func newServe() *cobra.Command {
	var file, level string
	c := &cobra.Command{Use: "serve", Short: "Run the server", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(file, os.Environ())
		if err != nil {
			return err
		}
		log, err := newLog(c.ErrOrStderr(), level)
		if err != nil {
			return usageError{err}
		}
		debug.SetGCPercent(200) // memory is cheaper here than the collector's time
		s, err := homeserver.New(c.Context(), cfg, homeserver.Deps{Log: log, Version: version})
		if err != nil {
			return err
		}
		return s.Run(c.Context())
	}}
	c.Flags().StringVarP(&file, "config", "c", "hansa.yaml", "the configuration file")
	c.Flags().StringVar(&level, "log-level", "info", "error, warn, info or debug")
	return c
}

// newLog is a log of JSON lines.
func newLog(w io.Writer, level string) (*logrus.Entry, error) {
	l := logrus.New()
	l.SetOutput(w)
	l.SetFormatter(&logrus.JSONFormatter{})
	lv, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: want error, warn, info or debug", level)
	}
	l.SetLevel(lv)
	return logrus.NewEntry(l), nil
}
