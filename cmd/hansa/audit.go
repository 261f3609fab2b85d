package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hansa/homeserver/adminapi"
)

func newAudit() *cobra.Command {
	return family(&cobra.Command{Use: "audit", Short: "The log of decisions: search, show, verify"}, newAuditSearch(), newAuditShow(), newAuditVerify())
}

func newAuditSearch() *cobra.Command {
	var cl client
	var p printer
	values := map[string]*string{}
	var limit int
	c := verb(&cobra.Command{Use: "search", Short: "Find recorded decisions, newest first", RunE: func(c *cobra.Command, _ []string) error {
		query := url.Values{"limit": {strconv.Itoa(limit)}}
		for name, v := range values {
			if *v == "" {
				continue
			}
			if name == "since" || name == "until" {
				t, err := parseDay(*v)
				if err != nil {
					return err
				}
				*v = t.Format("2006-01-02T15:04:05Z07:00")
			}
			query.Set(name, *v)
		}
		var list adminapi.DecisionList
		if err := cl.call(c.Context(), "GET", "/audit/decisions", query, nil, &list); err != nil {
			return err
		}
		return p.show(c, list, func(w io.Writer) {
			var rows [][]string
			for _, d := range list.Decisions {
				rows = append(rows, decisionRow(&d))
			}
			table(w, decisionHead(), rows)
			if list.Next != 0 {
				_, _ = fmt.Fprintf(w, "There are more: --before %d\n", list.Next)
			}
		})
	}}, 0, 0, "admin.action audit.search")
	cl.flags(c)
	p.flag(c)
	for name, help := range map[string]string{"tenant": "of this tenant", "point": "of this decision point", "subject": "about what this user did",
		"target": "about what was done to this user", "room": "about this room", "allow": "true or false", "since": "from this time on, as 2027-01-31 or 2027-01-31T18:00:00Z",
		"until": "before this time", "before": "before this sequence number, for the next page"} {
		values[name] = c.Flags().String(name, "", help)
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many, at most 1000")
	return c
}

func decisionHead() []string {
	return []string{"TIME", "ANSWER", "POINT", "SUBJECT", "TARGET", "REASONS", "DECISION"}
}

func decisionRow(d *adminapi.Decision) []string {
	var codes []string
	for _, r := range d.Reasons {
		codes = append(codes, r.Code)
	}
	target := d.Target
	if target == "" {
		target = d.Room
	}
	return []string{when(d.Time), answer(d.Allow), strings.TrimSpace(d.Point + " " + d.Action), d.Subject, target, strings.Join(codes, ", "), d.ID}
}

func answer(allow bool) string {
	if allow {
		return "allowed"
	}
	return "denied"
}

func newAuditShow() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "show decision", Short: "Show one recorded decision whole", RunE: func(c *cobra.Command, args []string) error {
		var d adminapi.Decision
		if err := cl.call(c.Context(), "GET", "/audit/decisions/"+url.PathEscape(args[0]), nil, nil, &d); err != nil {
			return err
		}
		return p.show(c, d, func(w io.Writer) {
			table(w, decisionHead(), [][]string{decisionRow(&d)})
			for _, r := range d.Reasons {
				_, _ = fmt.Fprintf(w, "  %s: %s [%s]\n", plain(r.Code), plain(r.Message), plain(r.Rule))
			}
			_, _ = fmt.Fprintf(w, "revision %s\ninput %s\n", d.Revision, plain(string(d.Input)))
		})
	}}, 1, 1, "admin.action audit.show")
	cl.flags(c)
	p.flag(c)
	return c
}

func newAuditVerify() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "verify", Short: "Check that no recorded decision was changed or removed", RunE: func(c *cobra.Command, _ []string) error {
		var v adminapi.Verification
		if err := cl.call(c.Context(), "POST", "/audit/verify", nil, nil, &v); err != nil {
			return err
		}
		err := p.show(c, v, func(w io.Writer) {
			if v.Intact {
				_, _ = fmt.Fprintf(w, "The log of decisions is whole: %s, each chained to the one before.\n", count(int(v.Records), "record"))
				return
			}
			_, _ = fmt.Fprintf(w, "The log of decisions was tampered with: record %d does not follow from those before it.\n", v.BrokenAt)
		})
		if err == nil && !v.Intact {
			return quietError{}
		}
		return err
	}}, 0, 0, "admin.action audit.verify")
	cl.flags(c)
	p.flag(c)
	return c
}
