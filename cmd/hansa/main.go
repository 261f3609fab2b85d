// Command hansa is the homeserver and everything that goes with running one: each verb stands in the file of its name.
//
// Verbs that act on a running server use its admin API, over the unix socket in the data directory, or with --server over HTTP(S) with
// an administrator's token. Every verb names the decision point that is asked before it does anything, or why none is (see verb); a test
// holds that. Exit status: 0 done, 1 failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

// ownProcess is the key of what tells, in a context, that the process is this program's own and may be begun anew.
type ownProcess struct{}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(context.WithValue(ctx, ownProcess{}, true), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// usageError marks a wrong use of the command line.
type usageError struct{ error }

func wrongUsage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// quietError is a failure that the output has told already.
type quietError struct{}

func (quietError) Error() string { return "" }

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.As(err, new(quietError)) {
		_, _ = fmt.Fprintln(errOut, "hansa:", err) // nobody is left to tell
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "hansa", Short: "A Matrix homeserver for organisations that decide who may talk to whom",
		SilenceUsage: true, SilenceErrors: true, Version: version}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	family(root, newInit(), newServe(), newDemo(), newUser(), newTenant(), newPartner(), newBridge(), newPolicy(), newAudit(), newConfig(), newVersion())
	return root
}

// verb finishes a command that does something: how many arguments it takes, and the decision point (with the action) that is asked, or
// after "none:" why none is.
func verb(c *cobra.Command, least, most int, point string) *cobra.Command {
	c.Annotations = map[string]string{"point": point}
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return wrongUsage("write it as: %s", c.UseLine())
	}
	return c
}

// family makes a command that only gathers others. Without one of them it is wrong usage.
func family(c *cobra.Command, members ...*cobra.Command) *cobra.Command {
	var names []string
	for _, m := range members {
		names = append(names, m.Name())
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.Join(wrongUsage("%s needs one of: %s", c.CommandPath(), strings.Join(names, ", ")))
		}
		return wrongUsage("%s has no %q, only: %s", c.CommandPath(), args[0], strings.Join(names, ", "))
	}
	c.AddCommand(members...)
	return c
}
