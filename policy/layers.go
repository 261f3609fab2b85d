package policy

import (
	"fmt"
	"path"
	"reflect"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// newRuleset compiles modules for use and finds the layers.
func newRuleset(c *codec, modules []moduleFile) (*ruleset, Problems) {
	compiler, _, problems := compileModules(modules, false)
	if len(problems) > 0 {
		return nil, problems
	}
	rs := &ruleset{codec: c, compiler: compiler, library: map[Point]*layer{}, operator: map[Point]*layer{},
		tenants: map[string]map[Point]*layer{}, pools: map[string]map[string]map[Point]*layer{}}
	a := newAnalyser(compiler)
	problems = append(problems, rs.findLayers(a, modules)...)
	for _, info := range Points() {
		pkg := pointRef(ast.Ref{ast.DefaultRootDocument, ast.StringTerm("hansa"), ast.StringTerm("points")}, info.Point)
		if l, ok := rs.newLayer(a, "hansa", pkg, "decision"); ok {
			rs.library[info.Point] = l
		}
	}
	lint := ast.Ref{ast.DefaultRootDocument, ast.StringTerm("hansa"), ast.StringTerm("lint")}
	if len(compiler.GetRulesExact(lint.Append(ast.StringTerm("errors")))) > 0 {
		rs.lint = ast.MustParseBody(`errors = [x | some x in data.hansa.lint.errors]; warnings = [x | some x in data.hansa.lint.warnings]`)
		var err error
		if rs.lint, err = compiler.QueryCompiler().Compile(rs.lint); err != nil {
			problems = append(problems, regoProblems("builtin:hansa", err)...)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	rs.makePlans()
	var err error
	if rs.contact, err = rs.newContactReads(); err != nil {
		return nil, asProblems(err)
	}
	return rs, nil
}

func pointRef(root ast.Ref, p Point) ast.Ref {
	ref := root.Copy()
	for _, part := range strings.Split(string(p), ".") {
		ref = append(ref, ast.StringTerm(part))
	}
	return ref
}

// newLayer prepares the queries of one package; ok is false when it defines none of the rules.
func (rs *ruleset) newLayer(a *analyser, name string, pkg ast.Ref, rules ...string) (*layer, bool) {
	l := &layer{name: name, pkg: pkg, reads: newReads(), origins: map[string]string{}}
	found := false
	for _, rule := range rules {
		ref := pkg.Append(ast.StringTerm(rule))
		defs := rs.compiler.GetRulesWithPrefix(ref)
		if len(defs) == 0 {
			continue
		}
		found = true
		q := &query{ref: ref}
		body, err := rs.compiler.QueryCompiler().Compile(ast.NewBody(ast.Equality.Expr(ast.VarTerm("x"), ast.NewTerm(ref))))
		if err != nil {
			return nil, false
		}
		q.body = body
		l.reads.add(a.query(ref))
		switch rule {
		case "decision":
			l.decision = q
		case "deny":
			l.deny = q
			for _, d := range defs {
				findCodes(d, l.origins)
			}
		case "obligations":
			l.obligations = q
		}
	}
	if !found {
		return nil, false
	}
	return l, true
}

// accesses compiles the paths that a layer reads. Members that the engine derives from the parties themselves (tenant,
// agreements) are not part of a key: whoever makes keys puts the names they derive from into them.
func (rs *ruleset) accesses(r *reads) (values, presence []access, only want) {
	vs, ps := r.paths()
	only = wanted(vs, ps)
	for _, set := range []struct {
		from [][]string
		to   *[]access
	}{{vs, &values}, {ps, &presence}} {
		for _, p := range set.from {
			if len(p) > 0 && isDerived(p) {
				continue
			}
			acc, err := rs.codec.compile(reflect.TypeFor[Input](), p)
			if err != nil {
				acc = access{} // a path that no input has; reading everything is safe
			}
			*set.to = append(*set.to, acc)
		}
	}
	return values, presence, only
}

// isDerived says whether the engine computes the member from names and the active set alone.
func isDerived(p []string) bool {
	switch p[0] {
	case "tenant", "agreements", "schema", "point", "time":
		return true
	}
	return len(p) > 1 && p[0] == "server" && p[1] == "agreement"
}

// findCodes notes where in a file a deny rule with a constant code stands.
func findCodes(r *ast.Rule, into map[string]string) {
	ast.WalkTerms(r, func(t *ast.Term) bool {
		o, ok := t.Value.(ast.Object)
		if !ok {
			return false
		}
		if code := o.Get(ast.StringTerm("code")); code != nil {
			if s, ok := code.Value.(ast.String); ok && r.Location != nil {
				into[string(s)] = fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row)
			}
		}
		return false
	})
}

// findLayers finds the packages of the operator, the tenants and their pools, and refuses what would never be asked or
// would reach into the data of others.
func (rs *ruleset) findLayers(a *analyser, modules []moduleFile) Problems {
	var problems Problems
	points := map[string]Point{}
	for _, p := range Points() {
		points[strings.ReplaceAll(string(p.Point), ".", "/")] = p.Point
	}
	seen := map[string]bool{}
	for _, m := range modules {
		problems = append(problems, checkRefs(m)...)
		if m.owner == "hansa" || m.source.isTest() {
			continue
		}
		words := refWords(m.module.Package.Path)
		rest := words[1:]
		if m.owner != "operator" {
			rest = words[2:]
		}
		pool := ""
		if m.owner != "operator" && len(rest) > 1 && rest[0] == "pools" {
			pool, rest = rest[1], rest[2:]
		}
		point, ok := points[path.Join(rest...)]
		problems = append(problems, checkRules(m, ok)...)
		if !ok || seen[m.module.Package.Path.String()] {
			continue
		}
		seen[m.module.Package.Path.String()] = true
		name := strings.TrimPrefix(m.module.Package.Path[:len(m.module.Package.Path)-len(rest)].String(), "data.")
		l, ok := rs.newLayer(a, name, m.module.Package.Path, "deny", "obligations")
		if !ok {
			continue
		}
		problems = append(problems, checkContact(m, point, l)...)
		switch {
		case m.owner == "operator":
			rs.operator[point] = l
		case pool == "":
			mapOf(rs.tenants, m.owner)[point] = l
		default:
			mapOf(mapOf(rs.pools, m.owner), pool)[point] = l
		}
	}
	return problems
}

func mapOf[K1, K2 comparable, V any](m map[K1]map[K2]V, k K1) map[K2]V {
	if m[k] == nil {
		m[k] = map[K2]V{}
	}
	return m[k]
}

// checkRules refuses a deny or obligations that no point asks for, and an allow in a layer.
func checkRules(m moduleFile, isPoint bool) Problems {
	var problems Problems
	for _, r := range m.module.Rules {
		name := ""
		if ref := r.Head.Ref(); len(ref) > 0 {
			name = strings.Trim(ref[0].String(), `"`)
		}
		switch {
		case name == "allow":
			problems = append(problems, problem(m.source.name, r.Loc().Row, "rule allow: a layer can only narrow; write deny rules"))
		case (name == "deny" || name == "obligations") && !isPoint:
			problems = append(problems, problem(m.source.name, r.Loc().Row,
				"rule %s would never be asked: %s is no decision point (see `hansa policy points`)", name, strings.TrimPrefix(m.module.Package.Path.String(), "data.")))
		}
	}
	return problems
}

// checkContact refuses contact rules that tell single users apart: contact is decided per audience class.
func checkContact(m moduleFile, p Point, l *layer) Problems {
	if p != Contact {
		return nil
	}
	var problems Problems
	for _, side := range []string{"subject", "target"} {
		for _, member := range identity() {
			if l.reads.readsPrefix(side, member) {
				problems = append(problems, problem(m.source.name, m.module.Package.Loc().Row,
					"contact rules cannot read input.%s.%s: contact is decided for classes of users, by pools, groups, roles and attributes", side, member))
			}
		}
	}
	return problems
}

// checkRefs refuses references that leave the layer's own part of the data: another tenant's rules or data, or all of it.
// What a test replaces with `with` is not a reference.
func checkRefs(m moduleFile) Problems {
	if m.owner == "operator" || m.owner == "hansa" {
		return nil
	}
	var problems Problems
	var v *ast.GenericVisitor
	v = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.With:
			v.Walk(x.Value)
			return true
		case ast.Ref:
			if len(x) > 0 && x[0].Equal(ast.DefaultRootDocument) && !withinLayer(x, m.owner) {
				line := 0
				if x[0].Location != nil {
					line = x[0].Location.Row
				}
				problems = append(problems, problem(m.source.name, line, "%s: rules of %s may refer only to data.hansa, data.config[\"%s\"], data.config.operator and data.%s",
					x, m.owner, m.owner, rootOf(m.owner)))
			}
		}
		return false
	})
	v.Walk(m.module)
	return problems
}

// withinLayer says whether a reference stays in the library, the owner's rules, or the data; a name that is computed is
// harmless in the data, of which a tenant's rules get only their own part.
func withinLayer(r ast.Ref, owner string) bool {
	words := refWords(r)
	if len(words) == 0 {
		return false
	}
	switch words[0] {
	case "hansa":
		return true
	case configRoot:
		if len(words) == 1 {
			return len(r) > 2
		}
		return words[1] == owner || words[1] == "operator"
	case "tenants":
		return len(words) > 1 && words[1] == owner
	}
	return false
}
