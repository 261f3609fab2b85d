package policy

import (
	"context"
	"testing"
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
	t.Logf("members that tell audience classes apart: %v %v", rs.contact.members, rs.contact.attributes)
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
