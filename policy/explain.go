package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Explanation tells how a decision comes about.
type Explanation struct {
	// Decision is the answer.
	Decision Decision `json:"decision"`
	// Layers are the layers that were asked, in order.
	Layers []LayerTrace `json:"layers"`
	// Text is the whole for people.
	Text string `json:"text"`
}

// LayerTrace is what one layer of one tenant said.
type LayerTrace struct {
	// Tenant is the tenant that was asked.
	Tenant string `json:"tenant"`
	// Layer is the layer: hansa (the library), operator, tenants["name"] or a pool of it.
	Layer string `json:"layer"`
	// Allow says whether the layer let it pass.
	Allow bool `json:"allow"`
	// Reasons are the layer's reasons.
	Reasons []Reason `json:"reasons,omitzero"`
	// Rules are the rules that held, with their place and title.
	Rules []string `json:"rules,omitzero"`
	// Error says why the layer could not be evaluated.
	Error string `json:"error,omitzero"`
}

// tracing collects what the layers said. A nil tracing collects nothing.
type tracing struct {
	set    *ast.AnnotationSet
	layers []LayerTrace
	tracer *ruleTracer
}

func (t *tracing) begin(l *layer, tenant string) topdown.QueryTracer {
	if t == nil {
		return nil
	}
	t.layers = append(t.layers, LayerTrace{Tenant: tenant, Layer: l.name})
	t.tracer = &ruleTracer{set: t.set}
	return t.tracer
}

func (t *tracing) end(v *verdict) {
	if t == nil {
		return
	}
	l := &t.layers[len(t.layers)-1]
	l.Allow, l.Reasons = v.allow, v.reasons
	if v.err != nil {
		l.Error = clean(v.err.Error(), 500)
	}
	if t.tracer != nil {
		l.Rules = t.tracer.rules
	}
}

// ruleTracer notes the rules that hold.
type ruleTracer struct {
	set   *ast.AnnotationSet
	rules []string
}

// Enabled implements topdown.QueryTracer.
func (r *ruleTracer) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (r *ruleTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (r *ruleTracer) TraceEvent(ev topdown.Event) {
	rule, ok := ev.Node.(*ast.Rule)
	if !ok || ev.Op != topdown.ExitOp || rule.Location == nil || len(r.rules) >= 200 {
		return
	}
	text := fmt.Sprintf("%s:%d %s", rule.Location.File, rule.Location.Row, rule.Head.Ref())
	if title := r.title(rule); title != "" {
		text += " (" + title + ")"
	}
	if !slices.Contains(r.rules, text) {
		r.rules = append(r.rules, clean(text, 300))
	}
}

func (r *ruleTracer) title(rule *ast.Rule) string {
	if r.set == nil {
		return ""
	}
	for _, a := range r.set.Chain(rule) {
		if a.Annotations != nil && a.Annotations.Title != "" {
			return a.Annotations.Title
		}
	}
	return ""
}

// Explain answers a question afresh and tells what every layer said. It records nothing.
func (e *Engine) Explain(ctx context.Context, in *Input) Explanation {
	now := e.opts.Now()
	s := e.snapshot(now)
	if !in.Time.IsZero() {
		now = in.Time
	}
	f := e.frame(in)
	defer e.release(f)
	f.in.Time = now
	t := &tracing{set: s.rules.compiler.GetAnnotationSet()}
	v := e.explain(ctx, s, f, t)
	x := Explanation{Decision: e.decision(s, in.Point, v, false), Layers: t.layers}
	x.Decision.explainContact(f)
	x.Decision.limitSize(in)
	x.Text = x.text(e, in, s, now)
	return x
}

func (e *Engine) explain(ctx context.Context, s *snapshot, f *frame, t *tracing) *verdict {
	info, ok := e.points[f.in.Point]
	if !ok || f.in.Subject == nil {
		return failed(fmt.Errorf("%w: point %q with no subject or of no known name", ErrEvaluation, f.in.Point))
	}
	f.askFor(s, info)
	if f.in.Point == Contact && f.in.Target != nil {
		if self(f.in.Subject, f.in.Target) {
			return e.yes
		}
		f.in.Subject, f.in.Target = s.contacts.reads.project(e.codec, f.in.Subject), s.contacts.reads.project(e.codec, f.in.Target)
	}
	if len(f.asked) == 0 {
		return deniedBy(CodeNoTenant, "This server has nothing to do with that.", "")
	}
	if f.in.Point != Contact {
		e.establish(s, f, f.in.Time)
	}
	return e.evaluate(ctx, s, f, t)
}

func (x *Explanation) text(e *Engine, in *Input, s *snapshot, now time.Time) string {
	var b strings.Builder
	answer := "ALLOWED"
	if !x.Decision.Allow {
		answer = "DENIED"
	}
	fmt.Fprintf(&b, "%s  %s", answer, in.Point)
	if in.Subject != nil {
		fmt.Fprintf(&b, "  subject %s", describe(in.Subject))
	}
	if in.Target != nil {
		fmt.Fprintf(&b, "  target %s", describe(in.Target))
	}
	if in.Room != nil && in.Room.ID != "" {
		fmt.Fprintf(&b, "  room %s", clean(in.Room.ID, 255))
	}
	fmt.Fprintf(&b, "\nrevision %s\n", s.revision)
	for _, l := range x.Layers {
		word := "allows"
		if !l.Allow {
			word = "DENIES"
		}
		fmt.Fprintf(&b, "\n%s asked by %s: %s\n", l.Layer, l.Tenant, word)
		for _, r := range l.Reasons {
			fmt.Fprintf(&b, "  reason %s: %s [%s]\n", r.Code, r.Message, r.Rule)
		}
		if l.Error != "" {
			fmt.Fprintf(&b, "  error: %s\n", l.Error)
		}
		for _, r := range l.Rules {
			fmt.Fprintf(&b, "  rule %s\n", r)
		}
	}
	if in.Point != Contact && in.Subject != nil && in.Target != nil && !self(in.Subject, in.Target) {
		v := e.contact(s, in.Subject, in.Target, now)
		fmt.Fprintf(&b, "\ncontact between the two: %t\n", v.allow)
		for _, r := range v.reasons {
			fmt.Fprintf(&b, "  reason %s: %s [%s]\n", r.Code, r.Message, r.Rule)
		}
	}
	return b.String()
}

func describe(p *Party) string {
	text := clean(p.ID, 255)
	if len(p.Pools) > 0 {
		text += " (pools " + strings.Join(p.Pools, ", ") + ")"
	}
	if p.Local && !p.Listed {
		text += " (not listed)"
	}
	return text
}
