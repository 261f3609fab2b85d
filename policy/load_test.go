package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCheck_NamesThePlace: what is wrong is told with file and line.
func TestCheck_NamesThePlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, text string
		line       int
		want       string
	}{
		"misspelt member":     {"acme.example/a.rego", tenantRule(RoomInvite, "deny contains {\"code\": \"x\", \"message\": \"m\"} if {\n\tinput.room\n\t\"sales\" in input.subject.pool\n}"), 5, "undefined ref: input.subject.pool"},
		"syntax":              {"acme.example/a.rego", tenantRule(RoomInvite, "deny contains if"), 3, "rego_parse_error"},
		"unused import":       {"acme.example/a.rego", "package tenants[\"acme.example\"].room.invite\n\nimport data.hansa.lib.clock\n\ndeny := []\n", 3, "unused"},
		"allow in a layer":    {"acme.example/a.rego", tenantRule(RoomInvite, "allow := true"), 3, "can only narrow"},
		"misspelt point":      {"acme.example/a.rego", "package tenants[\"acme.example\"].room.invit\n\ndeny := []\n", 3, "no decision point"},
		"identity in contact": {"acme.example/a.rego", tenantRule(Contact, "deny contains {\"code\": \"x\", \"message\": \"m\"} if input.subject.id == \"@a:acme.example\""), 1, "cannot read input.subject.id"},
		"duplicate key":       {"acme.example/pools.yaml", "research: {groups: [a]}\nresearch: {groups: [b]}\n", 2, "occurs twice"},
		"bad YAML":            {"acme.example/pools.yaml", "research: {groups: [a]}\nx: [\n", 2, ""},
		"list at the top":     {"acme.example/pools.yaml", "- a\n", 1, "must be a mapping"},
		"two files, one key":  {"acme.example/zz.yaml", "research: {groups: [x], contact: closed}\n", 0, "given by another file"},
		"bad JSON":            {"acme.example/more.json", "{\n\"lab\": {\"groups\": [], \"groups\": []}}\n", 2, "duplicate"},
		"a number as key":     {"acme.example/more.yaml", "1: {groups: [x]}\n", 1, "must be a string"},
		"unknown contact":     {"acme.example/more.yaml", "lab: {groups: [x], contact: perhaps}\n", 0, "lab"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, with(acmeFiles(), c.file, c.text))
			ps := Check(context.Background(), []string{dir}, []string{acme, globex})
			file := c.file
			if c.line == 0 && name == "unknown contact" {
				file = ""
			}
			wantProblem(t, ps, file, c.line, c.want)
		})
	}
	t.Run("a sound bundle", func(t *testing.T) {
		t.Parallel()
		if ps := Check(context.Background(), []string{write(t, acmeFiles())}, []string{acme, globex}).errors(); len(ps) > 0 {
			t.Errorf("%v", ps)
		}
	})
	t.Run("a bundle that is not there", func(t *testing.T) {
		t.Parallel()
		if ps := Check(context.Background(), []string{filepath.Join(t.TempDir(), "none")}, []string{acme}).errors(); len(ps) != 1 {
			t.Errorf("%v, want one problem", ps)
		}
	})
}

// TestRun_SavedEditsHold: an edit takes effect within a second, a broken one changes nothing and is told, and its repair
// takes effect again.
func TestRun_SavedEditsHold(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]time.Duration{"watched": time.Hour, "polled": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, acmeFiles(), func(o *Options) { o.Now = time.Now; o.Poll = poll })
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- e.Run(ctx) }()
			defer func() {
				cancel()
				must(t, <-done)
			}()
			alice := e.user("@alice:acme.example", "rnd")
			denied := func() bool { return !e.Decide(ctx, send(alice, NewAudience(alice))).Allow }
			if denied() {
				t.Fatal("denied before the edit")
			}
			await := func(what string, ok func() bool) {
				t.Helper()
				start := time.Now()
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for !ok() {
					<-tick.C
					if time.Since(start) > 30*time.Second {
						t.Fatalf("%s: not within 30 s", what)
					}
				}
				t.Logf("%s: after %v", what, time.Since(start))
			}
			put(t, e.dir, "acme.example/sub/x.rego", tenantRule(EventSend, `deny contains {"code": "closed", "message": "Closed."}`))
			await("edit", denied)
			put(t, e.dir, "acme.example/sub/x.rego", tenantRule(EventSend, `deny contains {"code": "closed" "message": "Closed."}`))
			await("broken edit", func() bool { // the file may have been read when it was half written
				refused := e.Status().Refused
				return refused != nil && slices.ContainsFunc(refused.Problems, func(p Problem) bool { return p.Line == 3 })
			})
			if !denied() {
				t.Errorf("a broken edit changed what is active")
			}
			wantProblem(t, e.Status().Refused.Problems, "acme.example/sub/x.rego", 3, "rego_parse_error")
			must(t, os.Remove(filepath.Join(e.dir, "acme.example", "sub", "x.rego")))
			await("repair", func() bool { return !denied() && e.Status().Refused == nil })
		})
	}
}

// TestReload_OwnTestsMustPass: a set whose tests fail is not made active.
func TestReload_OwnTestsMustPass(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	ctx := context.Background()
	before := e.Revision()
	put(t, e.dir, "acme.example/x.rego", tenantRule(EventSend, `deny contains {"code": "closed", "message": "Closed."} if input.event.type == "a"`))
	test := "package tenants[\"acme.example\"].event.send_test\n\nimport data.tenants[\"acme.example\"].event.send\n\ntest_closed if {\n\tcount(send.deny) == 1 with input as {\"event\": {\"type\": \"b\"}}\n}\n"
	put(t, e.dir, "acme.example/x_test.rego", test)
	err := e.Reload(ctx)
	if err == nil || e.Revision() != before {
		t.Fatalf("Reload = %v, want the failing test", err)
	}
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("%T", err)
	}
	wantProblem(t, ps, "x_test.rego", 5, "test_closed")
	put(t, e.dir, "acme.example/x_test.rego", strings.Replace(test, `"b"`, `"a"`, 1))
	must(t, e.Reload(ctx))
	if st := e.Status(); st.Tests.Passed != 1 || st.Refused != nil || e.Revision() == before {
		t.Errorf("%+v", st)
	}
}

// TestE249_ZipSlip: a bundle file with entries that lead out of it, links, foreign roots or too much is refused.
func TestE249_ZipSlip(t *testing.T) {
	t.Parallel()
	good := tenantRule(EventSend, `deny contains {"code": "closed", "message": "Closed."}`)
	for name, c := range map[string]struct {
		entries []tar.Header
		text    string
		want    string
	}{
		"sound":         {[]tar.Header{{Name: "/tenants/acme.example/x.rego"}}, good, ""},
		"parent":        {[]tar.Header{{Name: "../x.rego"}}, good, "unsound name"},
		"deep parent":   {[]tar.Header{{Name: "tenants/../../x.rego"}}, good, "unsound name"},
		"link":          {[]tar.Header{{Name: "x.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}, "", "unsound name"},
		"library root":  {[]tar.Header{{Name: ".manifest"}}, `{"roots": ["hansa"]}`, "declares the root"},
		"any root":      {[]tar.Header{{Name: ".manifest"}}, `{"roots": [""]}`, "declares the root"},
		"data outside":  {[]tar.Header{{Name: "data.json"}}, `{"config": {}}`, "must lie below config/"},
		"other's rules": {[]tar.Header{{Name: "tenants/globex.example/x.rego"}}, good, "may not be declared"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			zw := gzip.NewWriter(&buf)
			tw := tar.NewWriter(zw)
			for _, h := range c.entries {
				if h.Typeflag == 0 {
					h.Typeflag, h.Size = tar.TypeReg, int64(len(c.text))
				}
				h.Mode = 0o644
				must(t, tw.WriteHeader(&h))
				if h.Typeflag == tar.TypeReg {
					_, err := tw.Write([]byte(c.text))
					must(t, err)
				}
			}
			must(t, errors.Join(tw.Close(), zw.Close()))
			file := filepath.Join(t.TempDir(), "b.tar.gz")
			must(t, os.WriteFile(file, buf.Bytes(), 0o644))
			e, err := New(Options{Bundles: []string{file}, Tenants: []string{acme}})
			if c.want == "" {
				must(t, err)
				alice := e.Resolve(Facts{UserID: "@alice:acme.example"})
				if d := e.Decide(context.Background(), send(alice, NewAudience(alice))); d.Allow || !d.Has("closed") {
					t.Errorf("%+v", d)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want %q", err, c.want)
			}
		})
	}
	t.Run("a link out of the directory", func(t *testing.T) {
		t.Parallel()
		outside := write(t, map[string]string{"x.rego": good})
		dir := write(t, acmeFiles())
		must(t, os.Symlink(filepath.Join(outside, "x.rego"), filepath.Join(dir, "acme.example", "x.rego")))
		if ps := Check(context.Background(), []string{dir}, []string{acme}).errors(); len(ps) == 0 {
			t.Errorf("a link out of the directory was followed")
		}
	})
}

// FuzzParseData: no data file makes the loader panic, and what it accepts Rego accepts.
func FuzzParseData(f *testing.F) {
	for _, s := range []string{"a: 1", "a: &x [1]\nb: *x\n", "a: !!binary aGk=", "{", "a:\n- b\n- {c: d}", "? [a]\n: b", "a: .nan", "a: 2026-01-01", "a: 0x1F", "{\"a\": \"\\ud800\"}", "a: b\n---\nc: d", "<<: {a: b}", "a: &a [*a]", "\xff", "a: 1e400", "a: 9223372036854775808"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, js bool) {
		name := "acme.example/f.yaml"
		if js {
			name = "acme.example/f.json"
		}
		file := sourceFile{name: name, path: name, data: []byte(text)}
		doc, err := parseData(file)
		if err != nil {
			return
		}
		into := map[string]any{}
		if mergeData(into, file, doc) != nil {
			return
		}
		if _, err := newDataset(context.Background(), into, []string{acme}, nil, nil, time.Now()); err != nil {
			t.Errorf("data accepted by the loader was refused by Rego: %v", err)
		}
	})
}
