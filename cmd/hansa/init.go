package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/homeserver"
	"hansa/matrix"
)

func newInit() *cobra.Command {
	var dir, database string
	var tenants []string
	var ifAbsent bool
	c := verb(&cobra.Command{Use: "init", Short: "Write a configuration, a signing key for each tenant and a first policy",
		RunE: func(c *cobra.Command, _ []string) error {
			if len(tenants) == 0 {
				return wrongUsage("name at least one tenant: --tenant acme.example")
			}
			file := filepath.Join(dir, "hansa.yaml")
			if _, err := os.Stat(file); err == nil {
				if ifAbsent {
					_, err := fmt.Fprintf(c.OutOrStdout(), "%s is there already.\n", file)
					return err
				}
				return fmt.Errorf("%s is there already; to host another tenant use `hansa tenant add`", file)
			}
			names, err := parseTenants(tenants)
			if err != nil {
				return err
			}
			if err := initialize(dir, database, config.New(names...)); err != nil {
				return err
			}
			text := func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "Wrote %s, keys and a first policy for %s.\nStart it with: hansa serve -c %s\n", file, strings.Join(tenants, ", "), file)
			}
			text(c.OutOrStdout())
			return nil
		}}, 0, 0, "none: writes files")
	f := c.Flags()
	f.StringVar(&dir, "dir", ".", "where to write")
	f.StringVar(&database, "database", "", "postgres://user@host/database or sqlite:<file>; without it a SQLite file in the data directory")
	f.StringArrayVar(&tenants, "tenant", nil, "a domain to host, such as acme.example; may be repeated")
	f.BoolVar(&ifAbsent, "if-absent", false, "do nothing if there is a configuration already")
	return c
}

func parseTenants(list []string) ([]matrix.ServerName, error) {
	var out []matrix.ServerName
	for _, s := range list {
		name, err := matrix.ParseServerName(s)
		if err != nil || s != strings.ToLower(s) || strings.HasSuffix(s, ".") {
			return nil, wrongUsage("%q is not a domain in lower case, such as acme.example", s)
		}
		out = append(out, name)
	}
	return out, nil
}

// initialize writes a deployment into a directory. The configuration comes last: where it is, the rest is.
func initialize(dir, database string, cfg *config.Config) error {
	secret := ""
	if database != "" {
		cfg.Database = database
		if u, err := url.Parse(database); err == nil && u.User != nil {
			if _, has := u.User.Password(); has {
				secret, cfg.DatabaseFile = database, "database.url"
				cfg.Database = config.New().Database
			}
		}
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "hansa.yaml")
	checked, err := config.Parse(file, text, nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if secret != "" {
		if err := writeNew(filepath.Join(dir, cfg.DatabaseFile), secret+"\n", 0o600); err != nil {
			return err
		}
	}
	if err := writeIfAbsent(filepath.Join(checked.Policy.Bundles[0], "operator", "guardrails.yaml"), operatorStarter, 0o644); err != nil {
		return err
	}
	for _, t := range checked.Tenants {
		if err := prepareTenant(checked, t); err != nil {
			return err
		}
	}
	return writeNew(file, string(text), 0o640)
}

// prepareTenant makes what a tenant needs besides its entry in the configuration: a key, and a folder for its policy.
func prepareTenant(cfg *config.Config, t config.Tenant) error {
	if _, err := homeserver.LoadKey(t.SigningKeyFile); err != nil {
		return fmt.Errorf("signing key of %s: %w", t.Name, err)
	}
	for _, b := range cfg.Policy.Bundles {
		if info, err := os.Stat(b); err == nil && info.IsDir() || errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(b, ".tar.gz") {
			dir := filepath.Join(b, string(t.Name))
			if _, err := os.Stat(dir); err == nil {
				return nil // somebody has begun already
			}
			return writeNew(filepath.Join(dir, "pools.yaml"), strings.ReplaceAll(tenantStarter, "acme.example", string(t.Name)), 0o644)
		}
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(name, text string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func writeIfAbsent(name, text string, mode fs.FileMode) error {
	if err := writeNew(name, text, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

const tenantStarter = `# Who may talk to whom at acme.example.
#
# While nothing stands here, people of acme.example may meet each other, and nobody of another domain without an agreement.
# A change that is saved is active within a second; a broken one changes nothing. Look at it first with
#
#   hansa policy check
#   hansa policy status
#
# Pools keep parts of the organisation apart. Take the "# " away from these to have three:
#
# research:  {groups: [rnd], contact: closed}
# sales:     {groups: [sales], contact: {with: [marketing]}}
# marketing: {groups: [marketing], contact: {with: [sales]}}
#
# and put people in:
#
#   hansa user add @rita:acme.example --pool research
#
# Other settings, each in this file or another one of this folder:
#
# tenant: {timezone: Europe/Berlin}
# content: {encryption: required}
# rooms: {federate: never}
# whitelist: {enabled: true, groups: [staff]}
#
# Rules in Rego go beside this file, such as after_hours.rego with after_hours_test.rego.
`

const operatorStarter = `# What holds for all tenants of this deployment, whatever they write: a tenant can narrow it further, never widen it.
# Take the "# " away to switch one on.
#
# domains: {deny: ["*.evil.example"]}
# content: {max_upload_bytes: 10485760}
`
