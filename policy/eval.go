package policy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opametrics "github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// evaluator runs prepared queries against one tenant's data.
type evaluator struct {
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction
	input    *ast.Term
	now      time.Time
	limit    time.Duration
	tracer   topdown.QueryTracer
}

// run evaluates a query and returns the one value of x, nil when it is undefined. A panic in the evaluation is an error.
func (e *evaluator) run(ctx context.Context, q *query) (result *ast.Term, err error) {
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, fmt.Errorf("%w: %s: panic: %v", ErrEvaluation, q.ref, p)
		}
	}()
	cancel := topdown.NewCancel()
	timer := time.AfterFunc(e.limit, cancel.Cancel)
	defer timer.Stop()
	tq := topdown.NewQuery(q.body).WithCompiler(e.compiler).WithStore(e.store).WithTransaction(e.txn).WithInput(e.input).
		WithTime(e.now).WithCancel(cancel).WithStrictBuiltinErrors(true).WithMetrics(opametrics.NoOp())
	if e.tracer != nil {
		tq = tq.WithQueryTracer(e.tracer)
	}
	n := 0
	err = tq.Iter(ctx, func(r topdown.QueryResult) error {
		n++
		result = r[ast.Var("x")]
		return nil
	})
	switch {
	case topdown.IsCancel(err):
		return nil, fmt.Errorf("%w: %s", ErrDeadline, q.ref)
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrEvaluation, q.ref, err)
	case n > 1:
		return nil, fmt.Errorf("%w: %s has %d results", ErrEvaluation, q.ref, n)
	}
	return result, nil
}

// library evaluates the library's decision about a point.
func (e *evaluator) library(ctx context.Context, l *layer) *verdict {
	x, err := e.run(ctx, l.decision)
	if err != nil {
		return failed(err)
	}
	if x == nil {
		return failed(fmt.Errorf("%w: %s is undefined", ErrEvaluation, l.decision.ref))
	}
	o, ok := x.Value.(ast.Object)
	if !ok {
		return failed(fmt.Errorf("%w: %s is not an object", ErrEvaluation, l.decision.ref))
	}
	v := &verdict{}
	allow, ok := member(o, "allow").(ast.Boolean)
	if !ok {
		return failed(fmt.Errorf("%w: %s.allow is not a boolean", ErrEvaluation, l.decision.ref))
	}
	v.allow = bool(allow)
	if v.reasons, err = readReasons(member(o, "reasons"), l); err != nil {
		return failed(err)
	}
	if v.allow && len(v.reasons) > 0 {
		v.allow = false
	}
	if !v.allow && len(v.reasons) == 0 {
		v.reasons = []Reason{{Code: "denied", Message: "The policy does not allow this.", Rule: l.name}}
	}
	if v.obligations, err = readObligations(member(o, "obligations"), l); err != nil {
		return failed(err)
	}
	return v
}

// narrow evaluates a layer that can only deny.
func (e *evaluator) narrow(ctx context.Context, l *layer) *verdict {
	v := &verdict{allow: true}
	if l.deny != nil {
		x, err := e.run(ctx, l.deny)
		if err != nil {
			return failed(err)
		}
		if x != nil {
			if v.reasons, err = readReasons(x.Value, l); err != nil {
				return failed(err)
			}
			v.allow = len(v.reasons) == 0
		}
	}
	if l.obligations != nil {
		x, err := e.run(ctx, l.obligations)
		if err != nil {
			return failed(err)
		}
		if x != nil {
			if v.obligations, err = readObligations(x.Value, l); err != nil {
				return failed(err)
			}
		}
	}
	return v
}

func member(o ast.Object, key string) ast.Value {
	if t := o.Get(ast.StringTerm(key)); t != nil {
		return t.Value
	}
	return nil
}

// readReasons reads a set or list of {code, message}; anything else is an error, so that it denies.
func readReasons(v ast.Value, l *layer) ([]Reason, error) {
	var out []Reason
	var bad error
	read := func(t *ast.Term) {
		o, ok := t.Value.(ast.Object)
		if !ok {
			bad = fmt.Errorf("%w: %s: a reason must be an object with code and message", ErrEvaluation, l.name)
			return
		}
		code, ok1 := member(o, "code").(ast.String)
		message, ok2 := member(o, "message").(ast.String)
		if !ok1 || !ok2 {
			bad = fmt.Errorf("%w: %s: a reason must have code and message as strings", ErrEvaluation, l.name)
			return
		}
		r := Reason{Code: clean(string(code), 64), Message: clean(string(message), 500), Rule: l.name}
		if rule, ok := member(o, "rule").(ast.String); ok {
			r.Rule = clean(string(rule), 200)
		} else if at, ok := l.origins[string(code)]; ok {
			r.Rule = at
		}
		out = addReasons(out, r)
	}
	switch x := v.(type) {
	case nil:
	case ast.Set:
		x.Sorted().Foreach(read)
	case *ast.Array:
		x.Foreach(read)
	default:
		return nil, fmt.Errorf("%w: %s: reasons must be a set of objects", ErrEvaluation, l.name)
	}
	if len(out) > 64 {
		out = out[:64]
	}
	return out, bad
}

// clean keeps text of rules printable and short: it goes into logs, headers of mails and terminals.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// readObligations reads an obligations object. A key or value that is not known is an error: what the policy demands must
// not be passed over.
func readObligations(v ast.Value, l *layer) (Obligations, error) {
	var out Obligations
	if v == nil {
		return out, nil
	}
	bad := func(what string) (Obligations, error) {
		return out, fmt.Errorf("%w: %s: obligation %s", ErrEvaluation, l.name, what)
	}
	o, ok := v.(ast.Object)
	if !ok {
		return bad("is not an object")
	}
	err := o.Iter(func(k, t *ast.Term) error {
		key, _ := k.Value.(ast.String)
		s, _ := t.Value.(ast.String)
		switch {
		case key == "encryption" && (s == "required" || s == "forbidden"):
			out.Encryption = string(s)
		case key == "federate" && t.Value.Compare(ast.Boolean(false)) == 0:
			out.NoFederation = true
		case key == "federate" && t.Value.Compare(ast.Boolean(true)) == 0:
		case key == "history_visibility" && rank(string(s)) >= 0:
			out.HistoryVisibility = string(s)
		case key == "max_bytes":
			n, ok := t.Value.(ast.Number)
			f, fits := n.Float64()
			if !ok || !fits || f < 0 || f > math.MaxInt64/2 {
				return errors.New("max_bytes is not a size")
			}
			out.MaxBytes = max(1, int64(f))
		case key == "retention" && s != "":
			out.Retention = clean(string(s), 64)
		case key == "record" && s == "full":
			out.RecordFull = true
		case key == "push_format" && s == "event_id_only":
			out.PushEventIDOnly = true
		case key == "strangers" && s == "leave":
			out.LeaveStrangers = true
		default:
			return fmt.Errorf("%s has an unknown name or value", k)
		}
		return nil
	})
	if err != nil {
		return bad(err.Error())
	}
	return out, nil
}

func isDeadline(err error) bool { return errors.Is(err, ErrDeadline) }

// lint evaluates the library's check of the data: two lists of {path, message}.
func (e *evaluator) lint(ctx context.Context, body ast.Body) (found Problems, err error) {
	defer func() {
		if p := recover(); p != nil {
			found, err = nil, fmt.Errorf("%w: check of the data: panic: %v", ErrEvaluation, p)
		}
	}()
	cancel := topdown.NewCancel()
	timer := time.AfterFunc(e.limit, cancel.Cancel)
	defer timer.Stop()
	q := topdown.NewQuery(body).WithCompiler(e.compiler).WithStore(e.store).WithTransaction(e.txn).WithInput(e.input).
		WithTime(e.now).WithCancel(cancel).WithStrictBuiltinErrors(true)
	err = q.Iter(ctx, func(r topdown.QueryResult) error {
		for _, name := range []string{"errors", "warnings"} {
			list, _ := r[ast.Var(name)].Value.(*ast.Array)
			list.Foreach(func(t *ast.Term) { found = append(found, lintProblem(t, name == "warnings")) })
		}
		return nil
	})
	return found, err
}

func lintProblem(t *ast.Term, warning bool) Problem {
	p := Problem{Message: clean(t.String(), 500), Warning: warning}
	o, ok := t.Value.(ast.Object)
	if !ok {
		return p
	}
	where, _ := member(o, "path").(ast.String)
	message, _ := member(o, "message").(ast.String)
	p.Message = clean(string(message), 500)
	if where != "" {
		p.Message = clean(string(where), 200) + ": " + p.Message
	}
	return p
}
