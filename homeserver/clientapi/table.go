package clientapi

import (
	"strings"

	"hansa/policy"
)

// Entry describes a registered route, for those who must go through all of them.
type Entry struct {
	Method string
	// Paths are all paths under which it is served, the canonical one first; parameters stand as {name}.
	Paths []string
	// Public routes look at no token; Optional ones use one where there is one.
	Public, Optional bool
	// Point is the decision point that is asked below the route; None says why no decision is needed. One of both is set.
	Point policy.Point
	None  string
}

// Table lists all routes in the order of registration.
func (a *API) Table() []Entry {
	var out []Entry
	for _, r := range a.routes() {
		out = append(out, Entry{Method: r.method, Paths: r.paths(), Public: r.access == public, Optional: r.access == optional, Point: r.point, None: r.none})
	}
	return out
}

// paths are the path of a route, its aliases and the r0 forms of both.
func (r *route) paths() []string {
	var out []string
	for _, p := range append([]string{r.path}, r.aliases...) {
		out = append(out, p)
		for _, prefix := range []string{"/_matrix/client/", "/_matrix/media/"} {
			if rest, ok := strings.CutPrefix(p, prefix+"v3/"); ok {
				out = append(out, prefix+"r0/"+rest)
			}
		}
	}
	return out
}
