package fedserver

import (
	"net/http"
	"strings"

	"hansa/matrix"
	"hansa/policy"
)

// handler answers one request. An error that it returns is written for it, unless something was written already.
type handler func(w http.ResponseWriter, r *request) error

// access says how the caller of a route is verified.
type access uint8

const (
	signed  access = iota // an X-Matrix signature, and the door
	leaving               // the same, and the door is open to who only takes people out of rooms
	open                  // nobody is verified
)

// route is one line of a table.
type route struct {
	method, path string // path with {names}
	access       access
	// point is the decision point that is asked below this route, beside the door; none says why the door is enough, or why no decision is
	// needed at all. One of both is set.
	point policy.Point
	none  string
	fn    handler
	// limit is the largest body in bytes; 0 means 1 MiB.
	limit int64
	// acl makes the server ACL of the room in the path decide as well.
	acl bool
	// free marks routes whose handler waits for its turn by itself, or never.
	free bool
}

const defaultBodyLimit = 1 << 20

// routes gathers the tables of all chapters.
func (a *API) routes() []route {
	var all []route
	for _, table := range [][]route{a.discoveryRoutes(), a.keyRoutes(), a.transactionRoutes(), a.eventRoutes(), a.membershipRoutes(), a.deviceRoutes(), a.queryRoutes(),
		a.mediaRoutes()} {
		all = append(all, table...)
	}
	return all
}

// Entry describes a registered route, for those who must go through all of them.
type Entry struct {
	Method, Path string
	// Open routes verify nobody.
	Open bool
	// ACL tells whether the server ACL of the room decides.
	ACL bool
	// Point is the decision point that is asked below the route; None says why none is needed. One of both is set.
	Point policy.Point
	None  string
}

// Table lists all routes in the order of registration.
func (a *API) Table() []Entry {
	var out []Entry
	for _, r := range a.routes() {
		out = append(out, Entry{Method: r.method, Path: r.path, Open: r.access == open, ACL: r.acl, Point: r.point, None: r.none})
	}
	return out
}

// Handler returns the HTTP handler of the whole API.
func (a *API) Handler() http.Handler {
	f := &front{api: a, mux: http.NewServeMux(), methods: map[string]bool{}}
	for _, r := range a.routes() {
		f.methods[r.method] = true
		f.mux.Handle(r.method+" "+r.path, &endpoint{front: f, route: &r})
	}
	return f
}

// Serves tells whether a path belongs to this API, for listeners that serve others too.
func Serves(path string) bool {
	return strings.HasPrefix(path, "/_matrix/federation/") || strings.HasPrefix(path, "/_matrix/key/") || path == "/.well-known/matrix/server"
}

// find returns the endpoint of a request. Paths with empty or dotted segments are unknown, never redirected. Unknown paths are 404, unknown
// methods 405, both M_UNRECOGNIZED.
//
// spec: server-server-api#unsupported-endpoints
func (f *front) find(r *http.Request) (*endpoint, error) {
	unknown := matrix.Errorf(http.StatusNotFound, matrix.CodeUnrecognized, "There is no such endpoint.")
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") || !strings.HasPrefix(r.RequestURI, "/") {
		return nil, unknown
	}
	for _, s := range strings.Split(path[1:], "/") {
		if s == "" || s == "." || s == ".." {
			return nil, unknown
		}
	}
	if h, pattern := f.mux.Handler(r); pattern != "" {
		if e, ok := h.(*endpoint); ok {
			return e, nil
		}
		return nil, unknown
	}
	other := *r
	for m := range f.methods {
		if other.Method = m; m == r.Method {
			continue
		}
		if _, pattern := f.mux.Handler(&other); pattern != "" {
			return nil, matrix.Errorf(http.StatusMethodNotAllowed, matrix.CodeUnrecognized, "This endpoint does not take %s.", r.Method)
		}
	}
	return nil, unknown
}
