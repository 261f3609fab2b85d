package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bundle writes a bundle file of the given entries.
func bundle(t testing.TB, entries map[string]string) string {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	for name, text := range entries {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestE253_SignaturesAndDeltas: what claims to be signed is not taken on trust, and a delta is no bundle.
func TestE253_SignaturesAndDeltas(t *testing.T) {
	t.Parallel()
	good := tenantRule(EventSend, `deny contains {"code": "closed", "message": "Closed."}`)
	for name, c := range map[string]struct {
		entries map[string]string
		want    string
	}{
		"a signature without a key": {map[string]string{"tenants/acme.example/x.rego": good, ".signatures.json": `{"signatures":["x.y.z"]}`}, "is signed"},
		"an empty signature":        {map[string]string{"tenants/acme.example/x.rego": good, "/.signatures.json": `{}`}, "is signed"},
		"a delta":                   {map[string]string{"patch.json": `{"data":[{"op":"upsert","path":"/config/acme.example/pools","value":{}}]}`}, "delta bundle"},
		"a delta beside rules":      {map[string]string{"tenants/acme.example/x.rego": good, "/patch.json": `{}`}, "delta bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := New(Options{Bundles: []string{bundle(t, c.entries)}, Tenants: []string{acme}}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want %q", err, c.want)
			}
		})
	}
	// A file whose name only looks like a signature means nothing.
	e, err := New(Options{Bundles: []string{bundle(t, map[string]string{"tenants/acme.example/x.rego": good, "x-signatures.json": `{"signatures":[]}`})}, Tenants: []string{acme}})
	if err != nil {
		t.Fatal(err)
	}
	alice := e.Resolve(Facts{UserID: "@alice:acme.example"})
	if d := e.Decide(context.Background(), send(alice, NewAudience(alice))); d.Allow || !d.Has("closed") {
		t.Errorf("the rule of the bundle does not hold: %+v", d)
	}
}

// TestE254_KnownVerdicts: what other releases of the engine got wrong. A new release must give these answers as well.
func TestE254_KnownVerdicts(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]bool{
		`"b" in {"a", input.event.type}`:                            true, // sets with a part that is not known beforehand
		`"m.text" in {"m.image", input.event.msgtype}`:              true,
		`"x" in {"a", input.event.type}`:                            false,
		`input.event.type in ["a", "b"]`:                            true,
		`some k, "b" in {"k": input.event.type}; k == "k"`:          true,
		`glob.match("*.corp.example", [], "a.b.corp.example")`:      false,
		`glob.match("*.corp.example", null, "a.b.corp.example")`:    true,
		`endswith("evilcorp.example", "corp.example")`:              true,
		`every x in [input.event.type] { x == "b" }`:                true,
		`object.get(input.event, "no_such_member", "none") == "no"`: false,
		`regex.match("^b$", input.event.type)`:                      true,
		`input.event.size > 10`:                                     true,
		`{1, 2} == {2, 1}`:                                          true,
	} {
		t.Run(expr, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(EventSend, "deny contains {\"code\": \"hit\", \"message\": \"m\"} if {\n\t"+expr+"\n}")))
			alice := e.user("@alice:acme.example", "rnd")
			in := send(alice, NewAudience(alice))
			in.Event.Type = "b"
			d := e.Decide(context.Background(), in)
			if d.Err != nil || d.Allow == want || d.Has("hit") != want {
				t.Errorf("%s: %+v, want it to hold: %v", expr, d, want)
			}
		})
	}
}
