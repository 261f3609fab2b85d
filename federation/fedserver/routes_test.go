package fedserver

import (
	"os"
	"slices"
	"strings"
	"testing"

	"hansa/policy"
)

// operations reads the operations of the specification with the decision points that may stand for each.
func operations(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/operations.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[0] != "#" {
			out[f[0]+" "+f[1]] = f[2:]
		}
	}
	return out
}

// Every route names the decision point that is asked below it, or says why it needs none, and those that the specification wants under the
// server ACL are under it.
func TestE263_EveryRouteIsBound(t *testing.T) {
	t.Parallel()
	points := map[policy.Point]bool{}
	for _, p := range policy.Points() {
		points[p.Point] = true
	}
	spec, seen := operations(t), map[string]bool{}
	table := newKit(t).Table()
	if len(table) < 25 {
		t.Fatalf("%d routes", len(table))
	}
	for _, e := range table {
		name := e.Method + " " + e.Path
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if (e.Point == "") == (e.None == "") {
			t.Errorf("%s: it must name either a decision point or a reason, and has %q and %q", name, e.Point, e.None)
		}
		if e.Point != "" && !points[e.Point] {
			t.Errorf("%s: there is no decision point %q", name, e.Point)
		}
		if e.None != "" && len(strings.Fields(e.None)) < 3 {
			t.Errorf("%s: %q is no reason", name, e.None)
		}
		bound := string(e.Point)
		if bound == "" {
			bound = "-"
		}
		want, ok := spec[name]
		if !ok {
			t.Errorf("%s: it is no operation of the specification", name)
		}
		if !slices.Contains(want, bound) {
			t.Errorf("%s: bound to %s, want one of %v", name, bound, want)
		}
		if slices.Contains(want, "acl") != e.ACL {
			t.Errorf("%s: under the server ACL: %v", name, e.ACL)
		}
	}
}

// No request without a signature gets anywhere, but for keys, the version and .well-known.
func TestF82_NoAuthorization(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	open := 0
	for _, e := range k.Table() {
		if e.Open {
			status, _ := k.ask(e.Method, fill(e.Path), "")
			open++
			if status == 401 || status == 403 {
				t.Errorf("%s %s: %d, and it is open", e.Method, e.Path, status)
			}
			if !strings.HasPrefix(e.Path, "/_matrix/key/") && !strings.HasSuffix(e.Path, "/version") && !strings.HasPrefix(e.Path, "/.well-known/") {
				t.Errorf("%s %s is open", e.Method, e.Path)
			}
			continue
		}
		for _, header := range []string{"", "Bearer abc", "X-Matrix", "Basic eDp5", "X-Matrix origin=partner.example"} {
			var list []string
			if header != "" {
				list = []string{header}
			}
			if status, code := k.ask(e.Method, fill(e.Path), "{}", list...); status != 401 || code != "M_UNAUTHORIZED" {
				t.Errorf("%s %s with %q: %d %s", e.Method, e.Path, header, status, code)
			}
		}
	}
	if open != 5 {
		t.Errorf("%d routes are open", open)
	}
	if len(k.lookups) > 0 {
		t.Errorf("keys of %v were looked up", k.lookups)
	}
}

// Paths that are not there are 404, methods that are not there 405; nothing is redirected or cleaned up. The first versions of send_join and
// send_leave are gone.
func TestF115_UnknownEndpoints(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, path := range []string{"/", "/_matrix", "/_matrix/federation/", "/_matrix/federation/v1", "/_matrix/federation/v1/", "/_matrix/federation/v1/nothing",
		"/_matrix/federation/v1/send_join/!r:acme.example/$e", "/_matrix/federation/v1/send_leave/!r:acme.example/$e", "/_matrix/federation/v9/version",
		"/_matrix/federation//v1/version", "//_matrix/federation/v1/version", "/_matrix/federation/v1/../v1/version", "/_matrix/federation/v1/./version",
		"/_matrix/federation/v1/version/", "/_matrix/federation/v1/Version", "/_matrix/federation/v1/event//", "/_matrix/federation%2Fv1/version",
		"/_matrix/key/v2/server/", "/_matrix/key/v1/server", "/_matrix/client/versions", "/.well-known/matrix/client"} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
			if status, code := k.ask(method, path, "{}"); status != 404 || code != "M_UNRECOGNIZED" {
				t.Errorf("%s %s: %d %s", method, path, status, code)
			}
		}
	}
	for _, e := range k.Table() {
		for _, method := range []string{"DELETE", "PATCH"} {
			if status, code := k.ask(method, fill(e.Path), "{}"); status != 405 || code != "M_UNRECOGNIZED" {
				t.Errorf("%s %s: %d %s", method, e.Path, status, code)
			}
		}
	}
}
