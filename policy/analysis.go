package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// place is a position inside the input (root "") or inside a parameter of a function (root "0", "1", ...).
type place struct {
	root string
	path []string
}

// analyser follows rules from a query to everything they can read. It understands local aliases of input members and
// functions that get input members as arguments; anything else that takes a member counts as reading all of it.
type analyser struct {
	compiler *ast.Compiler
	rules    map[*ast.Rule]*summary
}

// summary is what one rule reads, seen from outside: places in the input and in its own parameters.
type summary struct {
	values   map[string]place
	presence map[string]place
	clock    bool
	deps     []*ast.Rule
	// value is set when the rule's value is a member of the input as it is: whoever refers to the rule reads that member,
	// or only a part of it.
	value []place
}

func newAnalyser(c *ast.Compiler) *analyser {
	return &analyser{compiler: c, rules: map[*ast.Rule]*summary{}}
}

// query returns what the rules behind a reference read, and the rules themselves.
func (a *analyser) query(ref ast.Ref) *reads {
	out := newReads()
	seen := map[*ast.Rule]bool{}
	var visit func(r *ast.Rule)
	visit = func(r *ast.Rule) {
		if seen[r] {
			return
		}
		seen[r] = true
		s := a.rule(r)
		out.clock = out.clock || s.clock
		for _, p := range s.values {
			if p.root == "" {
				out.values[strings.Join(p.path, "\x00")] = p.path
			}
		}
		for _, p := range s.presence {
			if p.root == "" {
				out.presence[strings.Join(p.path, "\x00")] = p.path
			}
		}
		for _, d := range s.deps {
			visit(d)
		}
	}
	for _, r := range a.rulesOf(ref) {
		visit(r)
		for _, p := range a.rule(r).value {
			out.values[strings.Join(p.path, "\x00")] = p.path
		}
	}
	if covered(out.values, []string{"time"}) {
		out.clock = true
	}
	return out
}

func (a *analyser) rulesOf(ref ast.Ref) []*ast.Rule {
	return a.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true})
}

func (a *analyser) rule(r *ast.Rule) *summary {
	if s, ok := a.rules[r]; ok {
		return s
	}
	s := &summary{values: map[string]place{}, presence: map[string]place{}}
	a.rules[r] = s // rules cannot be recursive; the entry only guards against a broken compiler
	w := &ruleWalk{a: a, s: s, alias: map[ast.Var][]place{}}
	for r := r; r != nil; r = r.Else {
		for i, arg := range r.Head.Args {
			p := place{root: strconv.Itoa(i)}
			if v, ok := arg.Value.(ast.Var); !ok {
				s.read(p)
			} else if !slices.ContainsFunc(w.alias[v], func(q place) bool { return q.key() == p.key() }) {
				w.alias[v] = append(w.alias[v], p)
			}
		}
	}
	for r := r; r != nil; r = r.Else {
		w.findAliases(r)
	}
	for r := r; r != nil; r = r.Else {
		if v := w.places(valueOf(r)); len(v) > 0 && isComplete(r) {
			s.value = append(s.value, v...)
			for _, p := range v {
				s.present(p)
			}
		} else {
			w.head(r.Head)
		}
		w.body(r.Body)
	}
	return s
}

func valueOf(r *ast.Rule) *ast.Term {
	if r.Head.Value == nil {
		return ast.NullTerm()
	}
	return r.Head.Value
}

// isComplete says whether a rule defines one document at a fixed place.
func isComplete(r *ast.Rule) bool {
	return len(r.Head.Args) == 0 && r.Head.Key == nil && r.Head.RuleKind() == ast.SingleValue && r.Head.Ref().IsGround() && isStrings(r.Head.Ref())
}

func isStrings(r ast.Ref) bool { return len(groundPrefix(r)) == len(r)-1 }

// throughRules resolves a reference to a rule whose value is a member of the input.
func (a *analyser) throughRules(ref ast.Ref) []place {
	words := groundPrefix(ref)
	var out []place
	for _, r := range a.rulesOf(ref) {
		own := groundPrefix(r.Ref())
		if !isComplete(r) || len(own) > len(words) {
			continue
		}
		for _, p := range a.rule(r).value {
			out = append(out, p.plus(words[len(own):]))
		}
	}
	return out
}

func (s *summary) read(p place)    { s.values[p.key()] = p }
func (s *summary) present(p place) { s.presence[p.key()] = p }
func (p place) key() string        { return p.root + "\x01" + strings.Join(p.path, "\x00") }
func (p place) plus(rest []string) place {
	return place{root: p.root, path: slices.Concat(p.path, rest)}
}

// ruleWalk visits one rule with its else branches.
type ruleWalk struct {
	a     *analyser
	s     *summary
	alias map[ast.Var][]place
}

// findAliases collects the variables that stand for a member of the input, until no more are found.
func (w *ruleWalk) findAliases(r *ast.Rule) {
	for changed := true; changed; {
		changed = false
		ast.WalkExprs(r, func(e *ast.Expr) bool {
			for _, pair := range aliasSides(e) {
				for _, p := range w.places(pair.value) {
					if !slices.ContainsFunc(w.alias[pair.name], func(q place) bool { return q.key() == p.key() }) && len(w.alias[pair.name]) < 16 {
						w.alias[pair.name] = append(w.alias[pair.name], p)
						changed = true
					}
				}
			}
			return false
		})
	}
}

type aliasSide struct {
	name  ast.Var
	value *ast.Term
}

// aliasSides returns the ways to read an expression as `name = input.path`.
func aliasSides(e *ast.Expr) []aliasSide {
	if e.Negated || !(e.IsEquality() || e.IsAssignment()) || len(e.With) > 0 {
		return nil
	}
	a, b := e.Operand(0), e.Operand(1)
	var out []aliasSide
	if v, ok := a.Value.(ast.Var); ok && isGroundPath(b) {
		out = append(out, aliasSide{v, b})
	}
	if v, ok := b.Value.(ast.Var); ok && isGroundPath(a) {
		out = append(out, aliasSide{v, a})
	}
	return out
}

func isGroundPath(t *ast.Term) bool {
	switch x := t.Value.(type) {
	case ast.Ref:
		for _, e := range x[1:] {
			if _, ok := e.Value.(ast.String); !ok {
				return false
			}
		}
		return true
	case ast.Var:
		return true
	}
	return false
}

// places resolves a term to the members of the input it stands for: none when it is something else.
func (w *ruleWalk) places(t *ast.Term) []place {
	switch x := t.Value.(type) {
	case ast.Var:
		if x == ast.InputRootDocument.Value.(ast.Var) {
			return []place{{}}
		}
		return w.alias[x]
	case ast.Ref:
		head, ok := x[0].Value.(ast.Var)
		if !ok {
			return nil
		}
		rest := groundPrefix(x)
		if x[0].Equal(ast.DefaultRootDocument) {
			return w.a.throughRules(x)
		}
		if head == ast.InputRootDocument.Value.(ast.Var) {
			return []place{{path: rest}}
		}
		var out []place
		for _, p := range w.alias[head] {
			out = append(out, p.plus(rest))
		}
		return out
	}
	return nil
}

func groundPrefix(r ast.Ref) []string {
	var out []string
	for _, e := range r[1:] {
		s, ok := e.Value.(ast.String)
		if !ok {
			break
		}
		out = append(out, string(s))
	}
	return out
}

func (w *ruleWalk) head(h *ast.Head) {
	if h.Key != nil {
		w.term(h.Key)
	}
	if h.Value != nil {
		w.term(h.Value)
	}
	for _, t := range h.Reference {
		if _, ok := t.Value.(ast.Var); ok {
			w.term(t)
		}
	}
}

func (w *ruleWalk) body(b ast.Body) {
	for _, e := range b {
		w.expr(e)
	}
}

func (w *ruleWalk) expr(e *ast.Expr) {
	for _, with := range e.With {
		w.term(with.Value)
	}
	switch t := e.Terms.(type) {
	case *ast.Term:
		w.term(t)
	case *ast.Every:
		w.term(t.Domain)
		w.body(t.Body)
	case []*ast.Term:
		if sides := aliasSides(e); len(sides) > 0 && w.aliased(sides) {
			for _, s := range sides {
				for _, p := range w.places(s.value) {
					w.s.present(p)
				}
			}
			return
		}
		w.call(t[0], t[1:])
	}
}

// aliased says whether every side of the equality is known as an alias, so that uses of the name stand for its reads.
func (w *ruleWalk) aliased(sides []aliasSide) bool {
	for _, s := range sides {
		if len(w.places(s.value)) == 0 {
			return false
		}
	}
	// an equality of two aliases compares their values
	return len(sides) == 1 || len(w.places(sides[0].value)) == 0
}

func (w *ruleWalk) call(op *ast.Term, args []*ast.Term) {
	ref, ok := op.Value.(ast.Ref)
	if !ok || !ref.HasPrefix(ast.DefaultRootRef) {
		if ok && ref.String() == "time.now_ns" {
			w.s.clock = true
		}
		if ok && ref.String() == "object.get" && w.objectGet(args) {
			return
		}
		for _, t := range args {
			w.term(t)
		}
		return
	}
	rules := w.a.rulesOf(ref)
	w.s.deps = append(w.s.deps, rules...)
	for i, arg := range args {
		from := w.places(arg)
		if len(from) == 0 {
			w.term(arg)
			continue
		}
		for _, p := range from {
			w.s.present(p)
		}
		root := strconv.Itoa(i)
		for _, r := range rules {
			if i >= len(r.Head.Args) { // the output of the call
				w.term(arg)
				continue
			}
			sub := w.a.rule(r)
			for _, q := range sub.values {
				if q.root == root {
					for _, p := range from {
						w.s.read(p.plus(q.path))
					}
				}
			}
			for _, q := range sub.presence {
				if q.root == root {
					for _, p := range from {
						w.s.present(p.plus(q.path))
					}
				}
			}
		}
	}
}

// objectGet understands object.get(member, "name", default) and object.get(member, ["a", "b"], default).
func (w *ruleWalk) objectGet(args []*ast.Term) bool {
	from := w.places(args[0])
	if len(from) == 0 || len(args) < 3 {
		return false
	}
	var path []string
	switch k := args[1].Value.(type) {
	case ast.String:
		path = []string{string(k)}
	case *ast.Array:
		for i := range k.Len() {
			s, ok := k.Elem(i).Value.(ast.String)
			if !ok {
				return false
			}
			path = append(path, string(s))
		}
	default:
		return false
	}
	for _, p := range from {
		w.s.present(p)
		w.s.read(p.plus(path))
	}
	if ref, ok := args[0].Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) {
		w.s.deps = append(w.s.deps, w.a.rulesOf(ref)...)
	}
	for _, t := range args[2:] {
		w.term(t)
	}
	return true
}

func (w *ruleWalk) term(t *ast.Term) {
	switch x := t.Value.(type) {
	case ast.Var:
		for _, p := range w.places(t) {
			w.s.read(p)
		}
	case ast.Ref:
		for _, p := range w.places(t) {
			w.s.read(p)
		}
		if x[0].Equal(ast.DefaultRootDocument) {
			w.s.deps = append(w.s.deps, w.a.rulesOf(x)...)
		} else if _, ok := x[0].Value.(ast.Var); !ok {
			w.term(x[0])
		}
		for _, e := range x[1:] {
			w.term(e)
		}
	case ast.Call:
		w.call(x[0], x[1:])
	case *ast.Array:
		x.Foreach(w.term)
	case ast.Set:
		x.Foreach(w.term)
	case ast.Object:
		x.Foreach(func(k, v *ast.Term) { w.term(k); w.term(v) })
	case *ast.ArrayComprehension:
		w.term(x.Term)
		w.body(x.Body)
	case *ast.SetComprehension:
		w.term(x.Term)
		w.body(x.Body)
	case *ast.ObjectComprehension:
		w.term(x.Key)
		w.term(x.Value)
		w.body(x.Body)
	case *ast.TemplateString:
		for _, part := range x.Parts {
			switch p := part.(type) {
			case *ast.Term:
				w.term(p)
			case *ast.Expr:
				w.expr(p)
			}
		}
	}
}
