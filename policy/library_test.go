package policy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestLibrary holds the embedded library to what the engine demands: it compiles, every point has its rule, its tests pass.
func TestLibrary(t *testing.T) {
	t.Parallel()
	files, err := librarySource()
	if err != nil {
		t.Fatal(err)
	}
	modules, problems := parseModules(files, true)
	for _, p := range problems {
		t.Errorf("%v", p)
	}
	rs, problems := newRuleset(newCodec(), modules)
	for _, p := range problems {
		t.Errorf("%v", p)
	}
	if rs == nil {
		t.FailNow()
	}
	for _, p := range Points() {
		if rs.library[p.Point] == nil {
			t.Errorf("the library has no rule hansa.points.%s.decision", p.Point)
		}
	}
	if want := []string{"bridge", "kind", "listed", "local", "pools", "tenant"}; !slices.Equal(rs.contact.members, want) || len(rs.contact.attributes) > 0 {
		t.Errorf("members that tell audience classes apart: %v %v, want %v: more members make more classes", rs.contact.members, rs.contact.attributes, want)
	}
	for _, p := range Points() {
		if l := rs.library[p.Point]; l != nil {
			v, pr := l.reads.paths()
			t.Logf("%s reads %v, presence of %v, clock %t", p.Point, v, pr, l.reads.clock)
		}
	}
}

func TestLibraryOwnTests(t *testing.T) {
	t.Parallel()
	results, err := Test(context.Background(), nil, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.Pass && !r.Skipped {
			t.Errorf("%s:%d %s.%s: %s %s", r.File, r.Line, r.Package, r.Name, r.Message, r.Output)
		}
	}
	t.Logf("%d tests", len(results))
}

// TestLibrary_ReservedKeys: the engine and the library agree on which keys of a tenant's data are no pools.
func TestLibrary_ReservedKeys(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil)
	s := e.current.Load()
	data := s.data.tenants[acme]
	q := &query{ref: ast.MustParseRef("data.hansa.lint.shape.reserved")}
	var err error
	if q.body, err = s.rules.compiler.QueryCompiler().Compile(ast.MustParseBody("x = data.hansa.lint.shape.reserved")); err != nil {
		t.Fatal(err)
	}
	ev := &evaluator{compiler: s.rules.compiler, store: data.store, txn: data.txn, input: ast.ObjectTerm(), now: time.Now(), limit: time.Minute}
	x, err := ev.run(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	x.Value.(ast.Set).Foreach(func(t *ast.Term) { names = append(names, string(t.Value.(ast.String))) })
	if len(names) == 0 {
		t.Fatal("the library reserves no names")
	}
	for _, name := range names {
		if isPool(name) {
			t.Errorf("%s is a pool for the engine and reserved by the library", name)
		}
	}
	for _, name := range []string{"admin", "bridges", "content", "custom", "domains", "partners", "previews", "profiles", "push", "rooms", "sessions", "tenant", "whitelist"} {
		if isPool(name) || !slices.Contains(names, name) {
			t.Errorf("%s is not reserved by both", name)
		}
	}
	if !isPool("research") || slices.Contains(names, "research") {
		t.Errorf("research is no pool")
	}
}

// TestExamplesAndPacks: every example and every pack is sound and passes its tests under the engine as it is shipped.
func TestExamplesAndPacks(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("../rego/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		kind := filepath.Base(filepath.Dir(dir))
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || kind != "examples" && kind != "packs" {
			continue
		}
		t.Run(kind+"/"+filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			tenants := []string{acme}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.IsDir() && strings.Contains(e.Name(), ".") {
					tenants = append(tenants, e.Name())
				}
			}
			e, err := New(Options{Bundles: []string{dir}, Tenants: tenants})
			if err != nil {
				t.Fatal(err)
			}
			if st := e.Status().Tests; st.Passed == 0 || st.Failed > 0 {
				t.Errorf("tests: %+v", st)
			}
		})
	}
}
