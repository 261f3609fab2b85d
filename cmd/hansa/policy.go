package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/homeserver/adminapi"
	"hansa/policy"
)

func newPolicy() *cobra.Command {
	return family(&cobra.Command{Use: "policy", Short: "The rules: check, test, ask, explain, look at what is active"},
		newPolicyCheck(), newPolicyTest(), newPolicyEval(), newPolicyExplain(), newPolicyPoints(), newPolicyStatus(), newPolicyReload())
}

// policySource says which rules a verb is about that needs no server: the bundles of the configuration, or those of the command line.
type policySource struct {
	file    string
	tenants []string
}

func (s *policySource) flags(c *cobra.Command) {
	configFlag(c, &s.file)
	c.Flags().StringArrayVar(&s.tenants, "tenant", nil, "a hosted domain, where the configuration is not to say; may be repeated")
}

// find returns the bundles and the tenants.
func (s *policySource) find(c *cobra.Command, bundles []string) ([]string, []string, error) {
	tenants := s.tenants
	if len(bundles) > 0 && (len(tenants) > 0 || !c.Flags().Changed("config")) {
		if len(tenants) == 0 {
			tenants = folderNames(bundles)
		}
		return bundles, tenants, nil
	}
	cfg, err := config.Load(s.file, os.Environ())
	if err != nil {
		return nil, nil, err
	}
	if len(bundles) == 0 {
		bundles = cfg.Policy.Bundles
	}
	if len(tenants) == 0 {
		for _, t := range cfg.Tenants {
			tenants = append(tenants, string(t.Name))
		}
	}
	return bundles, tenants, nil
}

// folderNames takes the folders of policy directories for the tenants that they are named after.
func folderNames(bundles []string) []string {
	var out []string
	for _, b := range bundles {
		entries, err := os.ReadDir(b)
		if err != nil {
			continue // a bundle file; what cannot be read at all is reported by whoever reads it
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != "operator" && !strings.HasPrefix(e.Name(), ".") {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

func printProblems(w io.Writer, list policy.Problems) (errs int) {
	for _, p := range list {
		kind := ""
		if p.Warning {
			kind = "warning: "
		} else {
			errs++
		}
		_, _ = fmt.Fprintf(w, "%s%s\n", kind, plain(p.Error()))
	}
	return errs
}

func newPolicyCheck() *cobra.Command {
	var src policySource
	var p printer
	c := verb(&cobra.Command{Use: "check [bundle ...]", Short: "Check rules and settings: syntax, types, misspelt fields, unknown keys",
		RunE: func(c *cobra.Command, args []string) error {
			bundles, tenants, err := src.find(c, args)
			if err != nil {
				return err
			}
			problems := policy.Check(c.Context(), bundles, tenants)
			errs := 0
			for _, p := range problems {
				if !p.Warning {
					errs++
				}
			}
			err = p.show(c, map[string]any{"sound": errs == 0, "problems": problems}, func(w io.Writer) {
				if printProblems(w, problems); errs == 0 {
					_, _ = fmt.Fprintf(w, "%s: sound.\n", strings.Join(bundles, ", "))
				}
			})
			if err == nil && errs > 0 {
				return quietError{}
			}
			return err
		}}, 0, -1, "none: reads files and changes nothing")
	src.flags(c)
	p.flag(c)
	return c
}

func newPolicyTest() *cobra.Command {
	var src policySource
	var p printer
	var library, verbose bool
	c := verb(&cobra.Command{Use: "test [bundle ...]", Short: "Run the tests beside the rules", RunE: func(c *cobra.Command, args []string) error {
		bundles, tenants, err := src.find(c, args)
		if err != nil {
			return err
		}
		results, err := policy.Test(c.Context(), bundles, tenants, library)
		if err != nil {
			return err
		}
		failed := 0
		for _, r := range results {
			if !r.Pass && !r.Skipped {
				failed++
			}
		}
		err = p.show(c, map[string]any{"results": results, "failed": failed}, func(w io.Writer) { printTests(w, results, failed, verbose) })
		if err == nil && failed > 0 {
			return quietError{}
		}
		return err
	}}, 0, -1, "none: reads files and changes nothing")
	src.flags(c)
	p.flag(c)
	c.Flags().BoolVar(&library, "library", false, "run the tests of the library, too")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "name the tests that pass")
	return c
}

func printTests(w io.Writer, results []policy.TestResult, failed int, verbose bool) {
	for _, r := range results {
		word := "FAIL"
		switch {
		case r.Skipped:
			word = "skip"
		case r.Pass:
			word = "pass"
		}
		if word == "pass" && !verbose {
			continue
		}
		_, _ = fmt.Fprintf(w, "%s %s:%d: %s.%s %s\n", word, r.File, r.Line, r.Package, r.Name, plain(r.Message))
		if r.Output != "" {
			_, _ = fmt.Fprintf(w, "     %s\n", plain(r.Output))
		}
	}
	_, _ = fmt.Fprintf(w, "%s, %d failed.\n", count(len(results), "test"), failed)
}

func newPolicyPoints() *cobra.Command {
	var p printer
	c := verb(&cobra.Command{Use: "points", Short: "List the decision points", RunE: func(c *cobra.Command, _ []string) error {
		points := policy.Points()
		return p.show(c, map[string]any{"points": points}, func(w io.Writer) {
			var rows [][]string
			for _, i := range points {
				rows = append(rows, []string{string(i.Point), string(i.Kind), i.Doc})
			}
			table(w, []string{"POINT", "KIND", "ASKED WHEN"}, rows)
		})
	}}, 0, 0, "none: prints a list that is the same everywhere")
	var file string
	configFlag(c, &file) // it changes nothing, and is accepted like everywhere
	p.flag(c)
	return c
}

func newPolicyStatus() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "status", Short: "Say which rules are active, and what is wrong with those that were not taken",
		RunE: func(c *cobra.Command, _ []string) error {
			var st policy.Status
			if err := cl.call(c.Context(), "GET", "/policy/status", nil, nil, &st); err != nil {
				return err
			}
			return p.show(c, st, func(w io.Writer) { printStatus(w, &st) })
		}}, 0, 0, "admin.action policy.status")
	cl.flags(c)
	p.flag(c)
	return c
}

func printStatus(w io.Writer, st *policy.Status) {
	_, _ = fmt.Fprintf(w, "revision    %s\nactive      since %s\ntenants     %s\nbundles     %s\nfiles       %d\ntests       %d passed\nagreements  %d\nOPA         %s\n",
		st.Revision, when(st.Since), strings.Join(st.Tenants, ", "), strings.Join(st.Bundles, ", "), len(st.Files), st.Tests.Passed, st.Agreements, st.OPA)
	if st.Refused == nil {
		_, _ = fmt.Fprintln(w, "The files on disk are what is active.")
		return
	}
	_, _ = fmt.Fprintf(w, "\nNOT ACTIVE: the files on disk were refused at %s, and the rules above still decide:\n", when(st.Refused.At))
	printProblems(w, st.Refused.Problems)
}

func newPolicyReload() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "reload", Short: "Let the server read the rules now; fails and says why when they are not taken",
		RunE: func(c *cobra.Command, _ []string) error {
			var r adminapi.Reloaded
			if err := cl.call(c.Context(), "POST", "/policy/reload", nil, nil, &r); err != nil {
				return err
			}
			err := p.show(c, r, func(w io.Writer) {
				if r.Active {
					_, _ = fmt.Fprintf(w, "Revision %s is active.\n", r.Revision)
					return
				}
				_, _ = fmt.Fprintf(w, "NOT ACTIVE: revision %s still decides.\n", r.Revision)
				printProblems(w, r.Problems)
			})
			if err == nil && !r.Active {
				return quietError{}
			}
			return err
		}}, 0, 0, "policy.change policy.reload")
	cl.flags(c)
	p.flag(c)
	return c
}

// offlineEngine answers from files alone.
func offlineEngine(bundles, tenants []string) (*policy.Engine, error) {
	return policy.New(policy.Options{Bundles: bundles, Tenants: tenants, SkipTests: true, Deadline: 5 * time.Second})
}
