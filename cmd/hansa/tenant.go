package main

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"hansa/config"
	"hansa/homeserver/adminapi"
)

func newTenant() *cobra.Command {
	return family(&cobra.Command{Use: "tenant", Short: "Hosted domains: add, list, show"}, newTenantAdd(), newTenantList(), newTenantShow())
}

func newTenantAdd() *cobra.Command {
	var file, publicURL, registration string
	c := verb(&cobra.Command{Use: "add name", Short: "Add a domain to the configuration, with a key and a first policy; it is hosted from the next start on",
		RunE: func(c *cobra.Command, args []string) error {
			names, err := parseTenants(args)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			t := config.New(names...).Tenants[0]
			if publicURL != "" {
				t.PublicURL = publicURL
			}
			if registration != "" {
				t.Registration = config.Registration(registration)
			}
			if text, err = appendTenant(text, t); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			cfg, err := config.Parse(file, text, os.Environ())
			if err != nil {
				return err
			}
			if err := prepareTenant(cfg, cfg.Tenants[len(cfg.Tenants)-1]); err != nil {
				return err
			}
			if err := replaceFile(file, text); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s stands in %s now. Restart the server to host it.\n", t.Name, file)
			return err
		}}, 1, 1, "none: edits files of the operator")
	configFlag(c, &file)
	c.Flags().StringVar(&publicURL, "public-url", "", "the address that clients reach it under; without it https://<name>")
	c.Flags().StringVar(&registration, "registration", "", "who may make an account: closed, token or open")
	return c
}

// appendTenant adds an entry to the list of tenants in the text of a configuration, and keeps its comments.
func appendTenant(text []byte, t config.Tenant) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	var list *yaml.Node
	if len(doc.Content) == 1 {
		for i := 0; i+1 < len(doc.Content[0].Content); i += 2 {
			if doc.Content[0].Content[i].Value == "tenants" {
				list = doc.Content[0].Content[i+1]
			}
		}
	}
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("has no list of tenants; are they given by the environment?")
	}
	entry := &yaml.Node{Kind: yaml.MappingNode}
	for _, kv := range [][2]string{{"name", string(t.Name)}, {"signing_key_file", t.SigningKeyFile}, {"public_url", t.PublicURL},
		{"registration", string(t.Registration)}} {
		entry.Content = append(entry.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: kv[0]}, &yaml.Node{Kind: yaml.ScalarNode, Value: kv[1]})
	}
	list.Style = 0
	list.Content = append(list.Content, entry)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// replaceFile puts a text in the place of a file, whole or not at all.
func replaceFile(name string, text []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := writeNew(tmp, string(text), info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

func tenantRow(t *adminapi.TenantInfo) []string {
	return []string{t.Name, t.PublicURL, t.Registration, strconv.FormatInt(t.Users, 10), t.KeyID}
}

func tenantHead() []string { return []string{"TENANT", "PUBLIC URL", "REGISTRATION", "USERS", "KEY"} }

func newTenantList() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "list", Short: "List the domains that the running server hosts", RunE: func(c *cobra.Command, _ []string) error {
		var list adminapi.TenantList
		if err := cl.call(c.Context(), "GET", "/tenants", nil, nil, &list); err != nil {
			return err
		}
		return p.show(c, list, func(w io.Writer) {
			var rows [][]string
			for i := range list.Tenants {
				rows = append(rows, tenantRow(&list.Tenants[i]))
			}
			table(w, tenantHead(), rows)
		})
	}}, 0, 0, "admin.action tenant.list")
	cl.flags(c)
	p.flag(c)
	return c
}

func newTenantShow() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "show name", Short: "Show one domain", RunE: func(c *cobra.Command, args []string) error {
		var t adminapi.TenantInfo
		if err := cl.call(c.Context(), "GET", "/tenants/"+url.PathEscape(args[0]), nil, nil, &t); err != nil {
			return err
		}
		return p.show(c, t, func(w io.Writer) {
			table(w, tenantHead(), [][]string{tenantRow(&t)})
			_, _ = fmt.Fprintf(w, "verify key %s %s\n", t.KeyID, t.VerifyKey)
		})
	}}, 1, 1, "admin.action tenant.show")
	cl.flags(c)
	p.flag(c)
	return c
}
