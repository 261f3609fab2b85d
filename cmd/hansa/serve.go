package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

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
		relaxTimers(c.Context(), cfg, log)
		limitMemory(log)
		go returnMemory(c.Context())
		return serve(c.Context(), cfg, homeserver.Deps{Log: log, Version: version})
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

// serve runs the server. When the database was found to have gone back in time the server ends, and a new one is made as soon as the database
// answers.
func serve(ctx context.Context, cfg *config.Config, d homeserver.Deps) error {
	for anew := false; ; {
		s, err := homeserver.New(ctx, cfg, d)
		switch {
		case err == nil:
			err = s.Run(ctx)
			anew = homeserver.WentBack(err)
		case !homeserver.Unavailable(err):
			return err
		}
		if !anew || ctx.Err() != nil {
			return err
		}
		d.Log.WithError(err).Error("starting anew, because what is in memory may never have been")
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}
