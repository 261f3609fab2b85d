package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"hansa/appservices"
	"hansa/config"
	"hansa/homeserver/adminapi"
	"hansa/matrix"
)

func newBridge() *cobra.Command {
	return family(&cobra.Command{Use: "bridge", Short: "Bridges to other networks: list, check, suspend, resume"},
		newBridgeList(), newBridgeCheck(),
		bridgeAct("suspend", "Stop a bridge: it can do nothing and is told of nothing", "suspended"),
		bridgeAct("resume", "Let a bridge go on; it is told of what it missed", "active"))
}

func newBridgeList() *cobra.Command {
	var cl client
	var p printer
	var tenant string
	c := verb(&cobra.Command{Use: "list", Short: "List bridges and how far each has been told of what concerns it",
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{}
			if tenant != "" {
				query.Set("tenant", tenant)
			}
			var list adminapi.BridgeList
			if err := cl.call(c.Context(), "GET", "/bridges", query, nil, &list); err != nil {
				return err
			}
			return p.show(c, list, func(w io.Writer) {
				var rows [][]string
				for _, b := range list.Bridges {
					state := "active"
					switch {
					case b.Suspended:
						state = "suspended"
					case b.Unconfirmed:
						state = "waiting"
					}
					last := ""
					if b.LastConfirmed > 0 {
						last = when(time.UnixMilli(b.LastConfirmed))
					}
					rows = append(rows, []string{b.ID, string(b.Tenant), string(b.Bot), b.URL, state, strconv.FormatInt(b.Behind, 10), last})
				}
				table(w, []string{"BRIDGE", "TENANT", "BOT", "URL", "STATE", "BEHIND", "LAST CONFIRMED"}, rows)
				if list.Problem != "" {
					_, _ = fmt.Fprintf(w, "\nThe files have changed and cannot be used; what was there before is active:\n%s\n", plain(list.Problem))
				}
			})
		}}, 0, 0, "admin.action bridge.list")
	cl.flags(c)
	p.flag(c)
	c.Flags().StringVar(&tenant, "tenant", "", "of this tenant only")
	return c
}

func newBridgeCheck() *cobra.Command {
	var file string
	var p printer
	c := verb(&cobra.Command{Use: "check [directory]", Short: "Check registration files as the server would read them",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			dir := cfg.Appservices.Directory
			if len(args) == 1 {
				dir = args[0]
			}
			var tenants []matrix.ServerName
			for _, t := range cfg.Tenants {
				tenants = append(tenants, t.Name)
			}
			list, warnings, err := appservices.Check(dir, tenants)
			if err != nil {
				return err
			}
			out := struct {
				Directory string   `json:"directory"`
				Bridges   []string `json:"bridges"`
				Warnings  []string `json:"warnings"`
			}{dir, []string{}, append([]string{}, warnings...)}
			for _, r := range list {
				out.Bridges = append(out.Bridges, r.ID)
			}
			return p.show(c, out, func(w io.Writer) {
				for _, text := range warnings {
					_, _ = fmt.Fprintf(w, "warning: %s\n", plain(text))
				}
				_, _ = fmt.Fprintf(w, "%s is sound: %s.\n", dir, count(len(list), "bridge"))
			})
		}}, 0, 1, "none: reads files")
	configFlag(c, &file)
	p.flag(c)
	return c
}

func bridgeAct(name, short, state string) *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: name + " bridge", Short: short, RunE: func(c *cobra.Command, args []string) error {
		var b adminapi.Bridge
		if err := cl.call(c.Context(), "POST", "/bridges/"+url.PathEscape(args[0])+"/"+name, nil, struct{}{}, &b); err != nil {
			return err
		}
		return p.show(c, b, func(w io.Writer) { _, _ = fmt.Fprintf(w, "The bridge %s is %s.\n", plain(b.ID), state) })
	}}, 1, 1, "admin.action bridge."+name)
	cl.flags(c)
	p.flag(c)
	return c
}
