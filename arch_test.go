// Package hansa_test checks the whole tree: who may import whom, what code may not do, that links to the specification and
// in the documentation lead somewhere, and that the Rego is formatted and compiles. `make check` runs it; each check prints
// the place and the rule that it broke.
package hansa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path that go.mod gives this module.
const module = "hansa"

// services are the packages of homeserver that stand side by side between room and the HTTP packages. They do not know of
// each other; clientsync, which shows a user all of it, is the exception and may read from these.
const services = "homeserver/membership homeserver/clientsync homeserver/account homeserver/e2ee homeserver/ephemeral " +
	"homeserver/media homeserver/push homeserver/search homeserver/directory"

// importTable says which packages of this module a package may import: the longest matching prefix on the left decides.
// A package that nothing here matches needs a line, which is a decision about the house. "dir/..." is dir and all below.
func importTable() map[string]string {
	const (
		protocol = " matrix/... "
		facts    = protocol + " storage storage/statemap policy rego "
		room     = facts + " homeserver/stream homeserver/room homeserver/ratelimit homeserver/reply federation "
	)
	return map[string]string{
		"matrix/...":              protocol,
		"config":                  " matrix ",
		"outbound/...":            protocol,
		"storage/...":             protocol + " storage/... ",
		"rego/...":                "",
		"policy/...":              protocol + " storage rego policy/... ",
		"federation":              protocol,
		"homeserver/ratelimit":    protocol,
		"homeserver/reply":        protocol + " storage ",
		"homeserver/stream":       facts,
		"homeserver/room":         facts + " homeserver/stream federation ",
		"homeserver/membership":   room,
		"homeserver/directory":    room,
		"homeserver/account":      room,
		"homeserver/e2ee":         room,
		"homeserver/ephemeral":    room,
		"homeserver/media":        room + " outbound/... ",
		"homeserver/push":         room + " outbound/... ",
		"homeserver/search":       room,
		"homeserver/clientsync":   room + " homeserver/account homeserver/e2ee homeserver/ephemeral homeserver/push ",
		"homeserver/clientapi":    room + services,
		"homeserver/adminapi":     room + services + " federation/agreement ",
		"federation/...":          room + services + " federation/... outbound/... ",
		"appservices/...":         room + services + " outbound/... ",
		"homeserver":              room + services + " config homeserver/clientapi homeserver/adminapi federation/... appservices/... outbound/... ",
		"cmd/...":                 facts + " cmd/... config homeserver homeserver/account homeserver/adminapi federation/agreement appservices ",
		"test/...":                " ... ",
		"storage/storagetest/...": protocol + " storage/... ",
	}
}

// owners says which packages alone may import a foreign package, tests aside. A prefix on the left covers what is below it.
func owners() map[string]string {
	return map[string]string{
		"github.com/open-policy-agent/opa": "policy/... rego/...",
		"database/sql":                     "storage/...",
		"github.com/jackc/pgx":             "storage/...",
		"modernc.org/sqlite":               "storage/...",
		"github.com/nats-io":               "homeserver/stream",
		"github.com/spf13/cobra":           "cmd/...",
		"go.yaml.in/yaml":                  "config policy/... appservices cmd/...",
		"hansa/config":                     "homeserver cmd/... test/...",
	}
}

// pure lists what may not be imported below matrix/: whatever reaches a network, database, clock, log or other goroutine.
func pure() []string {
	return []string{"net", "net/http", "os", "os/exec", "log", "log/slog", "sync", "sync/atomic", "database/sql", "context", "io/fs",
		"github.com/sirupsen/logrus", "github.com/prometheus/client_golang"}
}

// sourceFile is one parsed Go file of this module.
type sourceFile struct {
	path string // from the root, with slashes
	dir  string // path without the file's name, "." for the root
	test bool
	fset *token.FileSet
	ast  *ast.File
}

func (f *sourceFile) at(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(n.Pos()).Line)
}

func (f *sourceFile) imports() []string {
	var out []string
	for _, s := range f.ast.Imports {
		if p, err := strconv.Unquote(s.Path.Value); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// walk calls fn for every file of the tree that people wrote, with its path from the root.
func walk(t *testing.T, fn func(name string)) {
	t.Helper()
	skip := []string{"node_modules", "testdata", "bin", "data", "demo", "output"}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // somebody else's temporary file
			}
			return err
		}
		name := filepath.ToSlash(p)
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" || slices.Contains(skip, d.Name())) {
				return fs.SkipDir
			}
			return nil
		}
		fn(name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file of the module.
func sources(t *testing.T) []*sourceFile {
	t.Helper()
	var out []*sourceFile
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		out = append(out, &sourceFile{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), fset: fset, ast: f})
	})
	if len(out) == 0 {
		t.Fatal("found no Go files: the test must run at the root of the repository")
	}
	return out
}

// matches reports whether dir is one of the patterns, and how long the pattern is.
func matches(dir string, patterns ...string) (int, bool) {
	best, ok := -1, false
	for _, p := range patterns {
		prefix, below := strings.CutSuffix(p, "...")
		prefix = strings.TrimSuffix(prefix, "/")
		if dir == prefix || below && (prefix == "" || strings.HasPrefix(dir, prefix+"/")) {
			if len(prefix) > best {
				best = len(prefix)
			}
			ok = true
		}
	}
	return best, ok
}

func TestImports_PointOneWay(t *testing.T) {
	t.Parallel()
	table := importTable()
	for _, f := range sources(t) {
		if f.test || f.dir == "." {
			continue
		}
		allowed, best, found := "", -1, false
		for pattern, list := range table {
			if n, ok := matches(f.dir, pattern); ok && n > best {
				allowed, best, found = list, n, true
			}
		}
		if !found {
			t.Errorf("%s: package %s has no line in the import table of arch_test.go", f.path, f.dir)
			continue
		}
		for _, imp := range f.imports() {
			dir, ours := strings.CutPrefix(imp, module+"/")
			if !ours || dir == f.dir {
				continue
			}
			if _, ok := matches(dir, strings.Fields(allowed)...); !ok {
				t.Errorf("%s: %s may not import %s; it may import %s", f.path, f.dir, dir, strings.Join(strings.Fields(allowed), ", "))
			}
		}
	}
}

func TestImports_HaveOneOwner(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, imp := range f.imports() {
			for prefix, list := range owners() {
				if imp != prefix && !strings.HasPrefix(imp, prefix+"/") {
					continue
				}
				if _, ok := matches(f.dir, strings.Fields(list)...); !ok {
					t.Errorf("%s: only %s may import %s", f.path, list, imp)
				}
			}
		}
	}
}

func TestImports_StrictJSON(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if _, guarded := matches(f.dir, "matrix/...", "homeserver/...", "federation/...", "appservices/..."); !guarded || f.test {
			continue
		}
		if slices.Contains(f.imports(), "encoding/json") {
			t.Errorf("%s: encoding/json lets strangers override keys; use github.com/go-json-experiment/json", f.path)
		}
	}
}

func TestMatrix_IsPure(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if _, ok := matches(f.dir, "matrix/..."); !ok || f.test {
			continue
		}
		for _, imp := range f.imports() {
			if imp == "net/http" {
				continue // for the names of status codes, which selectors below make sure of
			}
			if slices.Contains(pure(), imp) {
				t.Errorf("%s: matrix/ is pure and may not import %s", f.path, imp)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: matrix/ is pure and starts no goroutine", f.at(n))
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				name := x.Name + "." + n.Sel.Name
				switch name {
				case "time.Now", "time.Since", "time.Until", "time.After", "time.NewTimer", "time.NewTicker", "time.Sleep", "time.AfterFunc":
					t.Errorf("%s: matrix/ is pure and reads no clock (%s): take the time as a parameter", f.at(n), name)
				}
				if x.Name == "http" && !strings.HasPrefix(n.Sel.Name, "Status") {
					t.Errorf("%s: matrix/ may take nothing from net/http but status codes (%s)", f.at(n), name)
				}
			}
			return true
		})
	}
}

func TestConnections_AreOpenedByOutbound(t *testing.T) {
	t.Parallel()
	forbidden := []string{"http.Get", "http.Post", "http.PostForm", "http.Head", "http.DefaultClient", "http.DefaultTransport",
		"net.Dial", "net.DialTimeout", "net.DialTCP", "net.DialUDP", "tls.Dial"}
	for _, f := range sources(t) {
		if _, ok := matches(f.dir, "outbound/...", "cmd/...", "test/..."); ok || f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains(forbidden, x.Name+"."+s.Sel.Name) {
					t.Errorf("%s: %s.%s: connections are opened by outbound/ alone", f.at(n), x.Name, s.Sel.Name)
				}
			}
			return true
		})
	}
}
