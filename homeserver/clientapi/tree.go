package clientapi

import (
	"net/http"
	"net/url"
	"strings"

	"hansa/matrix"
)

// tree finds routes by path. Segments are split before they are decoded, so that an encoded slash is part of a parameter, and
// policy, handlers and the log all see one decoded value. Paths with empty or dotted segments are unknown, never redirected.
type tree struct {
	root *branch
}

type branch struct {
	fixed    map[string]*branch
	param    *branch
	handlers map[string]*route
	names    []string
}

func newTree() *tree { return &tree{&branch{fixed: map[string]*branch{}}} }

// add registers a route under its path, its aliases and their r0 forms.
func (t *tree) add(r route) {
	for _, p := range r.paths() {
		t.put(p, &r)
	}
}

func (t *tree) put(path string, r *route) {
	b := t.root
	var names []string
	for _, seg := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if strings.HasPrefix(seg, "{") {
			names = append(names, strings.Trim(seg, "{}"))
			if b.param == nil {
				b.param = &branch{fixed: map[string]*branch{}}
			}
			b = b.param
			continue
		}
		next := b.fixed[seg]
		if next == nil {
			next = &branch{fixed: map[string]*branch{}}
			b.fixed[seg] = next
		}
		b = next
	}
	if b.handlers == nil {
		b.handlers = map[string]*route{}
	}
	if b.handlers[r.method] != nil {
		panic("clientapi: route registered twice: " + r.method + " " + path)
	}
	b.handlers[r.method], b.names = r, names
}

// find returns the route of a request and its decoded parameters. Unknown paths are 404, unknown methods 405, both M_UNRECOGNIZED.
func (t *tree) find(method, escaped string) (*route, map[string]string, error) {
	unknown := matrix.Errorf(http.StatusNotFound, matrix.CodeUnrecognized, "There is no such endpoint.")
	if !strings.HasPrefix(escaped, "/") {
		return nil, nil, unknown
	}
	segments := strings.Split(escaped[1:], "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i < len(segments)-1 {
			return nil, nil, unknown
		}
	}
	b, values := t.root.walk(segments, nil)
	if b == nil {
		return nil, nil, unknown
	}
	r := b.handlers[method]
	if r == nil && method == http.MethodHead {
		r = b.handlers[http.MethodGet]
	}
	if r == nil {
		return nil, nil, matrix.Errorf(http.StatusMethodNotAllowed, matrix.CodeUnrecognized, "This endpoint does not take %s.", method)
	}
	params := make(map[string]string, len(values))
	for i, v := range values {
		s, err := url.PathUnescape(v)
		if err != nil {
			return nil, nil, matrix.InvalidParam("The path is not properly encoded.")
		}
		params[b.names[i]] = s
	}
	return r, params, nil
}

// walk prefers fixed segments and goes back to a parameter where they lead nowhere.
func (b *branch) walk(segments []string, values []string) (*branch, []string) {
	if len(segments) == 0 {
		if b.handlers == nil {
			return nil, nil
		}
		return b, values
	}
	seg := segments[0]
	if next := b.fixed[seg]; next != nil {
		if found, vs := next.walk(segments[1:], values); found != nil {
			return found, vs
		}
	}
	if b.param == nil || seg == "" && len(segments) > 1 {
		return nil, nil
	}
	return b.param.walk(segments[1:], append(values[:len(values):len(values)], seg))
}
