package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hansa/homeserver/adminapi"
	"hansa/matrix"
	"hansa/policy"
)

func newPolicyEval() *cobra.Command {
	var src policySource
	var p printer
	var bundles []string
	c := verb(&cobra.Command{Use: "eval point question.json", Short: "Answer a question that a file holds (- for the standard input), from the files of the policy",
		Long: "Answer a question that a file holds (- for the standard input), asking all layers as the server does.\n\n" +
			"The question is an input as decision points get it. Only the files of the policy are known: put agreements of the database into the question.",
		RunE: func(c *cobra.Command, args []string) error {
			found, tenants, err := src.find(c, bundles)
			if err != nil {
				return err
			}
			question, err := readQuestion(c, args[1])
			if err != nil {
				return err
			}
			e, err := offlineEngine(found, tenants)
			if err != nil {
				return err
			}
			x, err := e.Eval(c.Context(), policy.Point(args[0]), question)
			if err != nil {
				return err
			}
			return p.show(c, x, func(w io.Writer) { _, _ = io.WriteString(w, x.Text) })
		}}, 2, 2, "none: reads files and changes nothing")
	src.flags(c)
	p.flag(c)
	c.Flags().StringArrayVar(&bundles, "bundle", nil, "a policy directory or bundle, in the place of those of the configuration; may be repeated")
	return c
}

func readQuestion(c *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(c.InOrStdin(), 16<<20))
	}
	return os.ReadFile(name)
}

func newPolicyExplain() *cobra.Command {
	var cl client
	var p printer
	var q adminapi.Question
	var offline bool
	c := verb(&cobra.Command{Use: "explain decision|point", Short: "Say how a decision came about, or how a question would be answered",
		Long: "Say which layers and rules lead to an answer: of a recorded decision, by the id that the refused person was given, or of a question about\n" +
			"people, such as\n\n  hansa policy explain room.invite --subject @anna:acme.example --target @carla:acme.example\n\n" +
			"The running server is asked, since it knows the pools of accounts, the agreements and the rooms. Where none runs, a question about people\n" +
			"is answered from the files of the policy.",
		RunE: func(c *cobra.Command, args []string) error {
			q.DecisionID, q.Point = "", policy.Point(args[0])
			if !slices.ContainsFunc(policy.Points(), func(i policy.PointInfo) bool { return i.Point == q.Point }) {
				q.DecisionID, q.Point = args[0], ""
				if q.Subject != "" {
					return wrongUsage("%q is no decision point; `hansa policy points` lists them", args[0])
				}
			} else if q.Subject == "" {
				return wrongUsage("say who wants to do it: --subject @name:tenant")
			}
			var a adminapi.Answer
			err := errOffline
			if !offline {
				err = cl.call(c.Context(), "POST", "/policy/explain", nil, q, &a)
			}
			if q.Point != "" && (errors.Is(err, errOffline) || errors.As(err, new(*noServer))) {
				_, _ = fmt.Fprintln(c.ErrOrStderr(), "No server was asked: what only its database knows (pools given to accounts, agreements, rooms) has no part in this answer.")
				err = explainOffline(c, &cl, &q, &a)
			}
			if err != nil {
				return err
			}
			return p.show(c, a, func(w io.Writer) { printAnswer(w, &a) })
		}}, 1, 1, "admin.action policy.explain")
	cl.flags(c)
	p.flag(c)
	f := c.Flags()
	f.StringVar(&q.Subject, "subject", "", "who wants to do it")
	f.StringVar(&q.Target, "target", "", "to whom")
	f.StringVar(&q.Room, "room", "", "the room that it happens in; without it a private room of the subject")
	f.StringArrayVar(&q.With, "with", nil, "somebody who is in that private room; may be repeated")
	f.StringVar(&q.Server, "other-server", "", "another server that takes part")
	f.StringVar(&q.EventType, "event-type", "", "the type of the event that would be sent")
	f.StringVar(&q.MsgType, "msgtype", "", "the msgtype of the message that would be sent")
	f.StringVar(&q.MimeType, "mimetype", "", "the type of the file that would be sent")
	f.Int64Var(&q.Size, "size", 0, "its size in bytes")
	f.StringVar(&q.Action, "action", "", "what an administrator would do, such as user.lock; or the field that would be changed")
	f.StringVar(&q.IP, "ip", "", "the address that it comes from")
	f.BoolVar(&offline, "offline", false, "ask the files of the policy and no server")
	return c
}

var errOffline = errors.New("no server was asked")

// explainOffline answers from the files of the policy.
func explainOffline(c *cobra.Command, cl *client, q *adminapi.Question, a *adminapi.Answer) error {
	src := policySource{file: cl.file}
	bundles, tenants, err := src.find(c, nil)
	if err != nil {
		return err
	}
	e, err := offlineEngine(bundles, tenants)
	if err != nil {
		return err
	}
	in, err := q.Input(adminapi.QuestionFacts{Now: time.Now, Hosts: func(name string) bool { return slices.Contains(tenants, name) },
		Party: func(id matrix.UserID) (*policy.Party, error) { return e.Resolve(policy.Facts{UserID: string(id)}), nil }})
	if err != nil {
		return err
	}
	x := e.Explain(c.Context(), in)
	a.Decision, a.Layers, a.Text = x.Decision, x.Layers, x.Text
	return nil
}

func printAnswer(w io.Writer, a *adminapi.Answer) {
	if d := a.Recorded; d != nil {
		table(w, decisionHead(), [][]string{decisionRow(d)})
		for _, r := range d.Reasons {
			_, _ = fmt.Fprintf(w, "  %s: %s [%s]\n", plain(r.Code), plain(r.Message), plain(r.Rule))
		}
		_, _ = fmt.Fprintf(w, "revision %s\n\nAsked again now:\n", d.Revision)
	}
	if a.Text != "" {
		for line := range strings.Lines(a.Text) {
			_, _ = fmt.Fprintln(w, plain(strings.TrimRight(line, "\n")))
		}
		return
	}
	_, _ = fmt.Fprintln(w, strings.ToUpper(answer(a.Decision.Allow)))
	for _, r := range a.Decision.Reasons {
		_, _ = fmt.Fprintf(w, "  %s: %s [%s]\n", plain(r.Code), plain(r.Message), plain(r.Rule))
	}
	for _, l := range a.Layers {
		_, _ = fmt.Fprintf(w, "%s asked by %s: %s\n", plain(l.Layer), plain(l.Tenant), answer(l.Allow))
	}
}
