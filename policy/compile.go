package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"hansa/rego"
)

// ruleset is one compiled set of rules. It holds no data and never changes.
type ruleset struct {
	codec    *codec
	compiler *ast.Compiler
	library  map[Point]*layer
	// operator, tenants and pools hold only the packages that exist.
	operator map[Point]*layer
	tenants  map[string]map[Point]*layer
	pools    map[string]map[string]map[Point]*layer
	lint     ast.Body
	contact  *contactReads
	// needs, plain and custom are made from the layers: what the engine must find out for a point, and what is asked of
	// tenants without rules of their own and of the others.
	needs  map[Point]needs
	plain  map[Point]*pointPlan
	custom map[string]map[Point]*pointPlan
}

// layer is one package that is asked for one point.
type layer struct {
	name        string // operator, tenants["acme.example"], ...
	pkg         ast.Ref
	decision    *query // library
	deny        *query // the others
	obligations *query
	reads       *reads
	origins     map[string]string // reason code -> file:line of the rule
}

// query is a prepared query for one document; its result is bound to x.
type query struct {
	ref  ast.Ref
	body ast.Body
}

// moduleFile is a parsed module with the place it was found.
type moduleFile struct {
	source sourceFile
	module *ast.Module
	owner  string // hansa, operator, or the tenant
}

func librarySource() ([]sourceFile, error) {
	var files []sourceFile
	err := fs.WalkDir(rego.Files, "hansa", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".rego") {
			return err
		}
		data, err := rego.Files.ReadFile(p)
		files = append(files, sourceFile{name: "builtin:" + p, path: p, data: data})
		return err
	})
	return files, err
}

func schemas() (*ast.SchemaSet, error) {
	data, err := rego.Files.ReadFile("schemas/input.json")
	if err != nil {
		return nil, err
	}
	var schema any
	if err := json.Unmarshal(data, &schema); err != nil {
		return nil, fmt.Errorf("policy: schemas/input.json: %w", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, schema)
	return set, nil
}

// parseModules parses the Rego files of bundles and of the library, and checks that each declares a package it may declare.
func parseModules(files []sourceFile, library bool) ([]moduleFile, Problems) {
	var out []moduleFile
	var problems Problems
	opts := ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: capabilities()}
	for _, f := range files {
		if !f.isRego() {
			continue
		}
		m, err := ast.ParseModuleWithOpts(f.name, string(f.data), opts)
		if err != nil {
			problems = append(problems, regoProblems(f.name, err)...)
			continue
		}
		if m == nil {
			continue // an empty file
		}
		mf := moduleFile{source: f, module: m, owner: packageOwner(m.Package.Path)}
		if p := checkPlace(mf, library); p != nil {
			problems = append(problems, *p)
			continue
		}
		out = append(out, mf)
	}
	return out, problems
}

// packageOwner is `hansa`, `operator`, or for tenants["x"] the tenant x; empty for any other package.
func packageOwner(p ast.Ref) string {
	words := refWords(p)
	switch {
	case len(words) == 0:
		return ""
	case words[0] == "hansa" || words[0] == "operator":
		return words[0]
	case words[0] == "tenants" && len(words) > 1:
		return words[1]
	}
	return ""
}

// refWords are the strings of a ground reference after its head.
func refWords(r ast.Ref) []string {
	if len(r) == 0 {
		return nil
	}
	return groundPrefix(r)
}

// checkPlace holds the roots: a folder named for a tenant holds only packages of that tenant, the folder operator only
// packages of the operator, and nothing outside the binary is part of the library.
func checkPlace(m moduleFile, library bool) *Problem {
	pkg := strings.TrimPrefix(m.module.Package.Path.String(), "data.")
	line := m.module.Package.Loc().Row
	bad := func(format string, args ...any) *Problem {
		p := problem(m.source.name, line, format, args...)
		return &p
	}
	if library {
		return nil
	}
	switch m.owner {
	case "":
		return bad(`package %s: a policy declares operator... or tenants["<domain>"]...`, pkg)
	case "hansa":
		return bad("package %s belongs to the library and cannot be changed by a bundle", pkg)
	}
	if m.owner != strings.ToLower(m.owner) {
		return bad("package %s: the domain must be in lower case", pkg)
	}
	folder, rest, nested := strings.Cut(m.source.path, "/")
	if folder == "tenants" && nested {
		folder, _, nested = strings.Cut(rest, "/")
	}
	if nested && folder != m.owner && folder != "config" {
		return bad("package %s may not be declared in the folder %s, whose root is %s", pkg, folder, rootOf(folder))
	}
	return nil
}

func rootOf(owner string) string {
	if owner == "operator" || owner == "hansa" {
		return owner
	}
	return fmt.Sprintf("tenants[%q]", owner)
}

// compileModules compiles modules under the allow-list of builtins, in strict mode, against the schema of the input.
func compileModules(modules []moduleFile, tests bool) (*ast.Compiler, map[string]*ast.Module, Problems) {
	set, err := schemas()
	if err != nil {
		return nil, nil, asProblems(err)
	}
	parsed := make(map[string]*ast.Module, len(modules))
	for _, m := range modules {
		if m.source.isTest() && !tests {
			continue
		}
		parsed[m.source.name] = m.module.Copy()
	}
	c := ast.NewCompiler().WithCapabilities(capabilities()).WithStrict(true).WithSchemas(set).WithEnablePrintStatements(tests).
		WithUseTypeCheckAnnotations(true).WithDefaultRegoVersion(ast.RegoV1).SetErrorLimit(50)
	if tests {
		c = c.WithRewriteTestRules(true)
	}
	c.Compile(parsed)
	if c.Failed() {
		return nil, nil, regoProblems("", c.Errors)
	}
	return c, parsed, nil
}

// regoProblems turns errors of the parser and the compiler into problems.
func regoProblems(name string, err error) Problems {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return Problems{{File: name, Message: err.Error()}}
	}
	out := make(Problems, 0, len(list))
	for _, e := range list {
		p := Problem{File: name, Message: e.Code + ": " + e.Message}
		if e.Details != nil {
			lines := e.Details.Lines()
			for i := range lines {
				lines[i] = strings.TrimSpace(lines[i])
			}
			p.Message += " (" + strings.Join(slices.DeleteFunc(lines, func(s string) bool { return s == "" }), "; ") + ")"
		}
		if e.Location != nil {
			p.Line, p.Col = e.Location.Row, e.Location.Col
			if e.Location.File != "" {
				p.File = e.Location.File
			}
		}
		out = append(out, p)
	}
	return out
}
