package clientapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"hansa/policy"
	"hansa/storage/storagetest"
)

// bare is an API without services: enough for everything that happens before a handler.
func bare() *API {
	return New(Deps{Log: storagetest.Quiet(), Tenants: []Tenant{{Name: "acme.example"}}})
}

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

// ownInstead are operations that could have a decision and need none here, because they are about the caller alone.
func ownInstead() map[string]bool {
	return map[string]bool{
		"GET /_matrix/client/v3/account/whoami":                               true,
		"GET /_matrix/client/v3/account/3pid":                                 true, // answers that there are none
		"POST /_matrix/client/v3/keys/device_signing/upload":                  true, // the caller's own keys
		"GET /_matrix/client/v3/login":                                        true, // these two are about nobody yet
		"GET /_matrix/client/v3/register/available":                           true,
		"GET /_matrix/client/v1/register/m.login.registration_token/validity": true,
		"POST /_matrix/media/v1/create":                                       true, // a name without content, which is judged when it comes
	}
}

// beyond are the routes that are no operations of the client-server API.
func beyond() map[string]string {
	return map[string]string{
		"GET /_matrix/federation/v1/version": "-",
		"GET /_synapse/admin/v1/register":    "-",
		"POST /_synapse/admin/v1/register":   "account.register",
	}
}

// Every route names the decision point that is asked below it, or says why it needs none.
func TestE263_EveryRouteIsBound(t *testing.T) {
	t.Parallel()
	points := map[policy.Point]bool{}
	for _, p := range policy.Points() {
		points[p.Point] = true
	}
	spec, other, own := operations(t), beyond(), ownInstead()
	if len(spec) < 160 {
		t.Fatalf("testdata has %d operations", len(spec))
	}
	seen := map[string]bool{}
	for _, e := range bare().Table() {
		name := e.Method + " " + e.Paths[0]
		if (e.Point == "") == (e.None == "") {
			t.Errorf("%s: it must name either a decision point or a reason, and has %q and %q", name, e.Point, e.None)
		}
		if e.Point != "" && !points[e.Point] {
			t.Errorf("%s: there is no decision point %q", name, e.Point)
		}
		if e.None != "" && len(strings.Fields(e.None)) < 3 {
			t.Errorf("%s: %q is no reason", name, e.None)
		}
		for _, p := range e.Paths {
			if seen[e.Method+" "+p] {
				t.Errorf("%s %s is there twice", e.Method, p)
			}
			seen[e.Method+" "+p] = true
		}
		bound := string(e.Point)
		if bound == "" {
			bound = "-"
		}
		want, ok := spec[name]
		switch {
		case !ok && other[name] == "":
			t.Errorf("%s: it is no operation of the specification, and not among the others that are known", name)
		case !ok && other[name] != bound, ok && !slices.Contains(want, bound) && !(bound == "-" && own[name]):
			t.Errorf("%s: bound to %s, want one of %v%s", name, bound, want, other[name])
		}
	}
}

// What clients need to live is there.
func TestRoutes_AreRegistered(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, e := range bare().Table() {
		have[e.Method+" "+e.Paths[0]] = true
	}
	// Chapters that are not built: third-party addresses, single sign-on, pushers, search, relations, and others.
	later := []string{"/3pid", "/account/password/", "/requestToken", "/login/", "auth_metadata", "/admin/", "/appservice/", "/thirdparty/", "/voip/", "/openid/", "/pushers",
		"/notifications", "/search", "/report", "/relations/", "/threads", "/timestamp_to_event", "/mutual_rooms", "/initialSync",
		"/client/v3/events", "/preview_url", "GET /_matrix/media/v3/config", "/directory/list/appservice/", "policy_server", "/matrix/support"}
	for name := range operations(t) {
		if !have[name] && !slices.ContainsFunc(later, func(part string) bool {
			return strings.Contains(name, part) && name != "POST /_matrix/client/v3/user_directory/search"
		}) {
			t.Errorf("%s is not served", name)
		}
	}
}

func ask(h http.Handler, method, path string) (*httptest.ResponseRecorder, string) {
	r := httptest.NewRequest(method, "http://acme.example/", strings.NewReader("{}"))
	if u, err := url.Parse("http://acme.example" + path); err == nil { // as net/http does: nothing is cleaned up
		r.URL = u
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var body struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(w.Body.Bytes(), &body)
	return w, body.Code
}

// fill puts something into the parameters of a path.
func fill(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = "x"
		}
	}
	return strings.Join(parts, "/")
}

// Every route wants a token unless it says otherwise, under each of its paths, and no path takes a method that it does not have.
func TestRoutes_TokenAndMethod(t *testing.T) {
	t.Parallel()
	a := bare()
	h := a.Handler()
	methods := map[string][]string{}
	for _, e := range a.Table() {
		for _, p := range e.Paths {
			methods[fill(p)] = append(methods[fill(p)], e.Method)
			if e.Public || e.Optional {
				continue
			}
			w, code := ask(h, e.Method, fill(p))
			if w.Code != 401 || code != "M_MISSING_TOKEN" {
				t.Errorf("%s %s without a token: %d %s", e.Method, p, w.Code, code)
			}
			checkHeaders(t, e.Method+" "+p, w.Header())
		}
	}
	for path, has := range methods {
		for _, m := range []string{"GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "CONNECT"} {
			if slices.Contains(has, m) {
				continue
			}
			w, code := ask(h, m, path)
			if w.Code != 405 || code != "M_UNRECOGNIZED" {
				t.Errorf("%s %s: %d %s, want 405 M_UNRECOGNIZED", m, path, w.Code, code)
			}
		}
		w, _ := ask(h, "OPTIONS", path)
		if w.Code >= 300 || w.Header().Get("Access-Control-Allow-Methods") == "" {
			t.Errorf("OPTIONS %s: %d %v", path, w.Code, w.Header())
		}
		checkHeaders(t, "OPTIONS "+path, w.Header())
	}
}

func checkHeaders(t *testing.T, what string, h http.Header) {
	t.Helper()
	if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%s: CORS headers %v", what, h)
	}
	if !strings.HasPrefix(what, "OPTIONS") && h.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: Cache-Control %q", what, h.Get("Cache-Control"))
	}
}

// What is not there is 404 M_UNRECOGNIZED, in the form that browsers may read; nothing is redirected or cleaned up.
func TestRoutes_UnknownPaths(t *testing.T) {
	t.Parallel()
	h := bare().Handler()
	for _, path := range []string{
		"/", "/_matrix", "/_matrix/client", "/_matrix/client/v3", "/_matrix/client/v3/", "/_matrix/client/v3/nothing", "/_matrix/client/v9/sync", "/_matrix/client/r1/sync",
		"/_matrix/client/v3/sync/", "/_matrix/client/v3/sync/x", "/_matrix//client/v3/sync", "//_matrix/client/v3/sync", "/_matrix/client/v3//sync",
		"/_matrix/client/v3/../v3/sync", "/_matrix/client/./v3/sync", "/_matrix/client/v3/rooms/../sync", "/_matrix/client/v3/rooms//state", "/_matrix/client/v3/rooms/!a:b//messages",
		"/_matrix/client/v3/profile//displayname", "/_matrix/client%2Fv3/sync", "/_matrix/client/v3/%73ync", "/_matrix/CLIENT/v3/sync", "/_matrix/client/v3/Sync",
		"/_matrix/client/v3/rooms/!a:b/state/m.room.member//x", "/_matrix/client/unstable/sync", "/_matrix/identity/v2", "/_synapse/admin/v1/users", "/_hansa/admin/v1/users", "/.well-known/matrix/nothing",
	} {
		for _, m := range []string{"GET", "POST", "PUT", "DELETE"} {
			w, code := ask(h, m, path)
			if w.Code != 404 || code != "M_UNRECOGNIZED" || w.Header().Get("Location") != "" {
				t.Errorf("%s %s: %d %s %s, want 404 M_UNRECOGNIZED", m, path, w.Code, code, w.Header().Get("Location"))
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/json" {
				t.Errorf("%s %s: Content-Type %q", m, path, ct)
			}
			checkHeaders(t, m+" "+path, w.Header())
		}
	}
}

// A parameter is decoded once, after the path was taken apart: an encoded slash is part of the parameter.
func TestE255_EncodedSlashInPaths(t *testing.T) {
	t.Parallel()
	tr := newTree()
	for _, r := range bare().routes() {
		tr.add(r)
	}
	const room = "/_matrix/client/v3/rooms/!a:b"
	for _, c := range []struct {
		method, path string
		want         map[string]string
	}{
		{"PUT", room + "/send/a%2Fb/t%2f1", map[string]string{"roomId": "!a:b", "eventType": "a/b", "txnId": "t/1"}},
		{"PUT", room + "/state/a%2Fb/c%2F..%2Fd", map[string]string{"roomId": "!a:b", "eventType": "a/b", "stateKey": "c/../d"}},
		{"PUT", room + "/state/a%2Fb", map[string]string{"roomId": "!a:b", "eventType": "a/b"}},
		{"PUT", room + "/state/a%2Fb/", map[string]string{"roomId": "!a:b", "eventType": "a/b"}},
		{"GET", room + "/event/$x%2Fy%252F", map[string]string{"roomId": "!a:b", "eventId": "$x/y%2F"}},
		{"POST", "/_matrix/client/v3/join/%23x%2F%2Fy:b", map[string]string{"roomIdOrAlias": "#x//y:b"}},
		{"PUT", room + "/state/x/%2E%2E", map[string]string{"roomId": "!a:b", "eventType": "x", "stateKey": ".."}},
		{"PUT", room + "/state/x/+%20%00", map[string]string{"roomId": "!a:b", "eventType": "x", "stateKey": "+ \x00"}},
		{"GET", "/_matrix/client/v3/user/@a:b/rooms/!a%2Ftags:b/tags", map[string]string{"userId": "@a:b", "roomId": "!a/tags:b"}},
	} {
		_, got, err := tr.find(c.method, c.path)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("%s: %s = %q, want %q", c.path, k, got[k], v)
			}
		}
	}
	if _, _, err := tr.find("GET", room+"/event/%zz"); err == nil {
		t.Error("a wrong escape was taken")
	}
}

// A HEAD request is answered like GET, and knows its routes as well.
func TestRoutes_Head(t *testing.T) {
	t.Parallel()
	h := bare().Handler()
	if w, _ := ask(h, "HEAD", "/_matrix/client/versions"); w.Code != 200 {
		t.Errorf("HEAD /versions: %d", w.Code)
	}
	if w, _ := ask(h, "HEAD", "/_matrix/client/v3/createRoom"); w.Code != 405 {
		t.Errorf("HEAD /createRoom: %d", w.Code)
	}
}
