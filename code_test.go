package hansa_test

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPackages_SayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	lines, code := map[string]int{}, map[string]bool{}
	for _, f := range sources(t) {
		code[f.dir] = code[f.dir] || !f.test
		if f.ast.Doc != nil && !f.test {
			if lines[f.dir] > 0 {
				t.Errorf("%s: package %s has two package comments", f.path, f.dir)
			}
			lines[f.dir] = len(strings.Split(strings.TrimSpace(f.ast.Doc.Text()), "\n"))
		}
	}
	for dir, hasCode := range code {
		if n := lines[dir]; hasCode && (n < 3 || n > 30) {
			t.Errorf("package %s: its package comment has %d lines, want 3 to 30", dir, n)
		}
	}
}

func TestExportedNames_AreDocumented(t *testing.T) {
	t.Parallel()
	obvious := []string{"Error", "String", "Unwrap", "Is", "Len", "Less", "Swap", "Close", "Scan", "Value", "ServeHTTP",
		"MarshalJSON", "UnmarshalJSON", "MarshalJSONTo", "UnmarshalJSONFrom", "MarshalText", "UnmarshalText"}
	for _, f := range sources(t) {
		if _, ok := matches(f.dir, "test/...", "cmd/..."); ok || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if !d.Name.IsExported() || d.Doc != nil || d.Recv != nil && (slices.Contains(obvious, d.Name.Name) || !exportedReceiver(d)) {
					continue
				}
				t.Errorf("%s: %s needs a sentence", f.at(d), d.Name.Name)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
						t.Errorf("%s: %s needs a sentence", f.at(s), s.Name.Name)
					}
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func TestPackages_HaveNoGlobalState(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		for _, imp := range f.ast.Imports {
			if imp.Name != nil && imp.Name.Name == "_" && imp.Path.Value != `"embed"` {
				t.Errorf("%s: blank import of %s: register it by hand where it is used", f.at(imp), imp.Path.Value)
			}
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: no init: let the constructor do it", f.at(d))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !f.test {
					checkVars(t, f, d)
				}
			}
		}
	}
}

// checkVars allows sentinel errors, compiled regular expressions, embedded files, build stamps and interface assertions.
func checkVars(t *testing.T, f *sourceFile, d *ast.GenDecl) {
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		if embedded(d.Doc) || embedded(v.Doc) {
			continue
		}
		for i, name := range v.Names {
			switch {
			case name.Name == "_", strings.HasPrefix(name.Name, "Err"), strings.HasPrefix(name.Name, "err"):
			case f.dir == "cmd/hansa" && name.Name == "version": // set by the linker
			case i < len(v.Values) && calls(v.Values[i], "regexp", "MustCompile"):
			default:
				t.Errorf("%s: package-level variable %s: make it a constant, a function or a field", f.at(name), name.Name)
			}
		}
	}
}

func embedded(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	return slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func calls(e ast.Expr, pkg, name string) bool {
	c, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg && s.Sel.Name == name
}

// guards are the functions under which a panic is an error, or goes on in the caller.
func guards() []string { return []string{"Guard", "Keep", "recover"} }

// unguarded lists the functions that start goroutines which need no recovery, and why.
func unguarded() map[string]string {
	return map[string]string{
		"appservices/reader.go arrange":    "it takes a lease, under which Keep runs the rest",
		"homeserver/run.go serve":          "net/http recovers in each connection, and without its listeners the process is no use",
		"homeserver/stream/catchup.go Run": "a node that cannot read the log is no use: it ends, and another one takes its leases",
		"outbound/dial.go dial":            "the dialler of the standard library, before anything is read",
		"storage/db.go Open":               "the writer, which guards each transaction by itself",
	}
}

// A panic in a goroutine ends the process, whatever recovers elsewhere: so each goroutine begins with a guard.
func TestGoroutines_AreGuarded(t *testing.T) {
	t.Parallel()
	needless := unguarded()
	for _, f := range sources(t) {
		if _, out := matches(f.dir, "test/...", "cmd/..."); out || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "DoChan" {
					t.Errorf("%s: a panic under DoChan ends the process; use stream.Flight", f.at(n))
				}
				if !startsGoroutine(n) || mentions(n, guards()) {
					return true
				}
				place := f.path + " " + fn.Name.Name
				if unguarded()[place] == "" {
					t.Errorf("%s: a panic in this goroutine ends the process: use stream.Guard, Keep or Spread", f.at(n))
				}
				delete(needless, place)
				return true
			})
		}
	}
	for place := range needless {
		t.Errorf("unguarded() names %s, which starts no such goroutine", place)
	}
}

// startsGoroutine tells whether a node is a go statement, or a call of the Go method of a group.
func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		return ok && (s.Sel.Name == "Go" || s.Sel.Name == "TryGo")
	}
	return false
}

// mentions tells whether one of the names is used in a node.
func mentions(n ast.Node, names []string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && slices.Contains(names, id.Name) {
			found = true
		}
		return !found
	})
	return found
}

func TestTests_NeitherSleepNorSkip(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if _, inTest := matches(f.dir, "test/..."); !f.test && !inTest {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := s.X.(*ast.Ident)
			switch {
			case x == nil:
			case x.Name == "time" && s.Sel.Name == "Sleep":
				t.Errorf("%s: wait for what happens, or use testing/synctest", f.at(n))
			case x.Name == "testing" && s.Sel.Name == "Short",
				slices.Contains([]string{"t", "tb", "b", "f"}, x.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name):
				t.Errorf("%s: a test that can skip proves nothing", f.at(n))
			}
			return true
		})
	}
}

// marker finds a note about unfinished work; one with an issue's number is fine.
var marker = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X)\b(\(#[0-9]+\))?`)

func TestSources_HaveNoLooseEnds(t *testing.T) {
	t.Parallel()
	check := func(at, text string) {
		if m := marker.FindStringSubmatch(text); m != nil && m[1] == "" {
			t.Errorf("%s: do it, or write %s(#issue)", at, m[0])
		}
	}
	for _, f := range sources(t) {
		for _, g := range f.ast.Comments {
			for _, c := range g.List {
				check(f.at(c), c.Text)
			}
		}
	}
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".rego") && !strings.HasSuffix(name, ".sql") && !strings.HasSuffix(name, ".sh") && name != "Makefile" {
			return
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		check(name, string(text))
	})
}

func TestFiles_HaveOneSubject(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if n := f.fset.Position(f.ast.FileEnd).Line; n > 1000 {
			t.Errorf("%s has %d lines: split it by subject", f.path, n)
		}
		for _, d := range f.ast.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil && !f.test {
				if n := f.fset.Position(d.End()).Line - f.fset.Position(d.Pos()).Line; n > 120 {
					t.Errorf("%s: %s has %d lines: split it", f.at(d), d.Name.Name, n)
				}
			}
		}
	}
}
