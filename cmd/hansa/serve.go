package main

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/homeserver"
)

func newServe() *cobra.Command {
	var file, level string
	c := verb(&cobra.Command{Use: "serve", Short: "Run the server", RunE: func(c *cobra.Command, _ []string) error {
		cfg, err := config.Load(file, os.Environ())
		if err != nil {
			return err
		}
		log, err := newLog(c.ErrOrStderr(), level)
		if err != nil {
			return err
		}
		limitMemory(log)
		s, err := homeserver.New(c.Context(), cfg, homeserver.Deps{Log: log, Version: version})
		if err != nil {
			return err
		}
		return s.Run(c.Context())
	}}, 0, 0, "none: whoever may read the keys is the operator")
	configFlag(c, &file)
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
		return nil, usageError{fmt.Errorf("log level %q: want error, warn, info or debug", level)}
	}
	l.SetLevel(lv)
	return logrus.NewEntry(l), nil
}
