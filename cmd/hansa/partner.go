package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hansa/federation/agreement"
	"hansa/homeserver/adminapi"
	"hansa/policy"
)

func newPartner() *cobra.Command {
	return family(&cobra.Command{Use: "partner", Short: "Agreements between domains: propose, approve, suspend, end, list"},
		partnerAct("propose", "Propose an agreement: what the first domain opens to the second", true),
		partnerAct("approve", "Approve what the second domain has proposed to the first; or end a suspension, or set other terms", true),
		partnerAct("suspend", "Let the first domain's half of an agreement hold no more, for now", false),
		partnerAct("end", "End the first domain's half of an agreement", false),
		newPartnerList())
}

func partnerAct(name, short string, withTerms bool) *cobra.Command {
	var cl client
	var p printer
	var pools []string
	var terms agreement.Terms
	var from, until string
	c := verb(&cobra.Command{Use: name + " tenant partner", Short: short, RunE: func(c *cobra.Command, args []string) error {
		var body any
		if withTerms {
			var err error
			if terms.Pools, err = parsePools(pools); err != nil {
				return err
			}
			if terms.ValidFrom, err = parseDay(from); err != nil {
				return err
			}
			if terms.ValidUntil, err = parseDay(until); err != nil {
				return err
			}
			body = terms
		}
		var r agreement.Record
		err := cl.call(c.Context(), "POST", "/agreements/"+url.PathEscape(args[1])+"/"+name, url.Values{"tenant": {args[0]}}, body, &r)
		if err != nil {
			return err
		}
		return p.show(c, r, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "The agreement of %s with %s is %s.\n", r.Owner, r.Partner, r.State)
		})
	}}, 2, 2, "partner.change partner."+name)
	cl.flags(c)
	p.flag(c)
	if withTerms {
		f := c.Flags()
		f.StringArrayVar(&pools, "pool", nil, "a pool of the tenant that is opened to the partner, or ours=theirs for a pair; may be repeated; without it everybody outside closed pools")
		f.StringArrayVar(&terms.Features, "feature", nil, "what may pass: messages, media, presence, profiles, directory or calls; may be repeated; without it everything")
		f.StringVar(&terms.Direction, "direction", "", "who may begin: both, outbound (the tenant) or inbound (the partner)")
		f.StringVar(&from, "from", "", "when it begins to hold, as 2027-01-31 or 2027-01-31T18:00:00Z")
		f.StringVar(&until, "until", "", "when it ceases to hold")
	}
	return c
}

func parsePools(list []string) ([]policy.PoolPair, error) {
	var out []policy.PoolPair
	for _, s := range list {
		ours, theirs, pair := strings.Cut(s, "=")
		if !pair {
			theirs = "*"
		}
		if ours == "" || theirs == "" {
			return nil, wrongUsage("--pool %q: write a pool of the tenant, or ours=theirs", s)
		}
		out = append(out, policy.PoolPair{Ours: ours, Theirs: theirs})
	}
	return out, nil
}

func parseDay(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, wrongUsage("%q is not a time; write it as 2027-01-31 or 2027-01-31T18:00:00Z", s)
}

func newPartnerList() *cobra.Command {
	var cl client
	var p printer
	var tenant string
	c := verb(&cobra.Command{Use: "list", Short: "List agreements: the halves that tenants hold, and those that partners hold about them",
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{}
			if tenant != "" {
				query.Set("tenant", tenant)
			}
			var list adminapi.AgreementList
			if err := cl.call(c.Context(), "GET", "/agreements", query, nil, &list); err != nil {
				return err
			}
			return p.show(c, list, func(w io.Writer) {
				var rows [][]string
				for _, r := range list.Agreements {
					rows = append(rows, []string{string(r.Owner), string(r.Partner), r.State, r.Direction, poolText(r.Pools), strings.Join(r.Features, ", "),
						when(r.ValidFrom), when(r.ValidUntil), r.ChangedBy})
				}
				table(w, []string{"TENANT", "PARTNER", "STATE", "DIRECTION", "POOLS", "FEATURES", "FROM", "UNTIL", "CHANGED BY"}, rows)
			})
		}}, 0, 0, "admin.action partner.list")
	cl.flags(c)
	p.flag(c)
	c.Flags().StringVar(&tenant, "tenant", "", "of this tenant only")
	return c
}

func poolText(pairs []policy.PoolPair) string {
	var out []string
	for _, p := range pairs {
		out = append(out, p.Ours+"="+p.Theirs)
	}
	return strings.Join(out, ", ")
}
