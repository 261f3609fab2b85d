// Package clientapi is the HTTP of the client-server API: parse, one call, JSON.
//
// All routes stand in tables (one function per chapter, gathered in routes.go), each with the access it wants and the decision point
// that is asked before it has an effect or an answer that depends on another user, room or server, or the reason why it needs none. A
// test walks the tables and fails on a route that names neither.
//
// A handler gets a request whose body limit, token, tenant and path parameters are dealt with, and returns an error instead of writing
// one: *matrix.Error becomes that answer, everything else is 500 M_UNKNOWN with the request's ID, logged once.
//
// spec: client-server-api#api-standards
// spec: client-server-api#web-browser-clients
package clientapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/account"
	"hansa/homeserver/reply"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
)

// handler answers one request. An error that it returns is written for it, unless something was written already.
type handler func(w http.ResponseWriter, r *request) error

// access says who may call a route.
type access uint8

const (
	public   access = iota // no token is looked at
	user                   // a valid token of a user
	optional               // a token is used where there is one
)

// route is one line of a table.
type route struct {
	method, path string // path with {names}; one under /_matrix/client/v3 and /_matrix/media/v3 is served under r0 as well
	access       access
	// point is the decision point that is asked below this route; none says why no decision is needed. One of both is set.
	point policy.Point
	none  string
	fn    handler
	// limit is the largest body in bytes; 0 means 1 MiB. raw bodies are left to the handler.
	limit int64
	raw   bool
	// aliases are further paths that mean the same.
	aliases []string
	// reads marks a POST, PUT or DELETE that suspended users may call all the same, locked one that locked users may call.
	reads, locked bool
	// lists marks a route that leaves out what this node's memory says the caller is not to see, and answers 200 all the same.
	lists bool
}

// request is an HTTP request on its way through a handler.
type request struct {
	*http.Request
	id      string
	ip      netip.Addr
	tenant  matrix.ServerName
	session *account.Session // nil on public routes, and on optional ones without a token
	party   *policy.Party    // see subject
	query   url.Values       // see values
	route   *route
	params  map[string]string
	body    []byte
	again   bool // the body is read and the limits are charged
}

const defaultBodyLimit = 1 << 20

// Handler returns the HTTP handler of the whole API.
func (a *API) Handler() http.Handler {
	t := newTree()
	for _, r := range a.routes() {
		t.add(r)
	}
	return &front{api: a, tree: t}
}

// front is the middleware: CORS, request ID, recovery, routing, body, token, errors.
type front struct {
	api  *API
	tree *tree
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization")
	h.Set("Access-Control-Expose-Headers", "Retry-After, X-Request-Id")
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	q := &request{Request: r, id: reply.RequestID(), ip: AddressOf(r, f.api.Proxies)}
	h.Set("X-Request-Id", q.id)
	defer f.recover(w, q)
	if err := f.serve(w, q); err != nil {
		f.writeError(w, q, err)
	}
}

func (f *front) recover(w http.ResponseWriter, q *request) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p) // net/http closes the connection on it
		}
		f.api.Log.WithFields(logrus.Fields{"request_id": q.id, "err": fmt.Sprint(p), "stack": string(debug.Stack())}).Error("panic in a handler")
		f.writeError(w, q, errors.New("panic"))
	}
}

// serve answers a request. What was refused by what this node has in memory is looked at again when other nodes have written something
// that it did not know. What is answered with 200 is read from the database, but for what a route is marked with lists for.
func (f *front) serve(w http.ResponseWriter, q *request) error {
	if !f.several() {
		return f.once(w, q)
	}
	since := f.api.Sync.Position()
	err := f.once(w, q)
	if q.route == nil || q.route.raw || !isRefusal(err) || !f.api.Sync.Renew(q.Context(), since) {
		return err
	}
	q.party, q.again = nil, true
	return f.once(w, q)
}

// several tells whether there may be other nodes.
func (f *front) several() bool { return f.api.Several != nil && f.api.Several() }

// isRefusal tells whether an error says that something is not allowed or not there, or that others were faster: then nothing was done. After any other
// 503 that is not known.
func isRefusal(err error) bool {
	var me *matrix.Error
	if errors.As(err, &me) && !errors.Is(err, room.ErrBusy) {
		return me.Status == http.StatusForbidden || me.Status == http.StatusNotFound
	}
	return errors.Is(err, room.ErrUnknownRoom) || errors.Is(err, room.ErrBusy)
}

func (f *front) once(w http.ResponseWriter, q *request) error {
	rt, params, err := f.tree.find(q.Method, q.URL.EscapedPath())
	if err != nil {
		return err
	}
	q.route, q.params = rt, params
	q.tenant = f.api.tenantOfHost(q.Host)
	if err := f.authenticate(q); err != nil {
		return err
	}
	if !rt.raw && !q.again && q.Method != http.MethodGet && q.Method != http.MethodHead {
		if err := q.readBody(w); err != nil {
			return err
		}
	}
	if rt.lists && !q.again && f.several() {
		f.api.Sync.Renew(q.Context(), f.api.Sync.Position())
	}
	return rt.fn(w, q)
}

// authenticate finds the session of the token. The tenant of a request is the session's.
//
// spec: client-server-api#using-access-tokens
func (f *front) authenticate(q *request) error {
	if q.route.access == public {
		return nil
	}
	if token, ok := q.bridgeToken(); ok && f.api.Bridges != nil {
		if b, ok := f.api.Bridges.Find(q.Context(), token); ok {
			return f.authenticateBridge(q, b)
		}
	}
	token, ok := q.token()
	if !ok {
		if q.route.access == optional {
			return nil
		}
		return matrix.Errorf(http.StatusUnauthorized, matrix.CodeMissingToken, "This needs an access token in the Authorization header.")
	}
	authenticate := f.api.Accounts.Authenticate
	if q.route.locked {
		authenticate = f.api.Accounts.AuthenticateLocked
	}
	s, err := authenticate(q.Context(), token)
	if err != nil {
		return err
	}
	if q.Method != http.MethodGet && !q.route.reads {
		if err := s.CheckWrite(); err != nil {
			return err
		}
	}
	if !q.again {
		if err := f.api.limits.charge(q.route, s.UserID); err != nil {
			return err
		}
	}
	f.api.Accounts.Seen(s, q.client())
	q.session, q.tenant = s, s.Tenant
	return nil
}

// token takes the access token from the header. Tokens in the query string are not accepted, those of application services aside: they end up in logs.
func (q *request) token() (string, bool) {
	h := q.Header.Values("Authorization")
	if len(h) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(h[0], " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// client describes where the request came from.
func (q *request) client() account.Client {
	return account.Client{IP: q.ip, UserAgent: q.UserAgent(), Appservice: q.session != nil && q.session.Bridge != nil}
}

// caller is the session and the client behind it, for the account service.
func (q *request) caller() account.Caller {
	return account.Caller{Session: q.session, Client: q.client()}
}

// subject is the caller to policy, with device and network.
func (q *request) subject() *policy.Party {
	if q.party == nil {
		c := q.client()
		q.party = q.session.Party.With(q.session.Party.Device, &policy.Network{IP: c.IP.String()})
	}
	return q.party
}

// values are the parameters of the query string, parsed once.
func (q *request) values() url.Values {
	if q.query == nil {
		q.query = q.URL.Query()
	}
	return q.query
}

// policyRequest is the part of policy input that tells of the HTTP request.
func (q *request) policyRequest() *policy.Request {
	c := q.client()
	via := "client"
	if c.Appservice {
		via = "appservice"
	}
	return &policy.Request{IP: c.IP.String(), UserAgent: c.UserAgent, Via: via}
}

// tenantOfHost is the tenant that a request without a token is for: that of the Host header, else the first one.
func (a *API) tenantOfHost(host string) matrix.ServerName {
	name, err := matrix.ParseServerName(host)
	if err == nil {
		for _, t := range a.Tenants {
			if t.Name == name || string(t.Name) == name.Host() || t.Host != "" && (t.Host == string(name) || t.Host == name.Host()) {
				return t.Name
			}
		}
	}
	return a.Tenants[0].Name
}

// writeError is the one place where errors become answers.
//
// spec: client-server-api#standard-error-response
func (f *front) writeError(w http.ResponseWriter, q *request, err error) {
	if errors.Is(err, room.ErrUnknownRoom) {
		err = matrix.Forbidden("You are not in this room.") // the same answer as for a room that exists
	}
	reply.Refuse(q.Context(), w, f.api.Log, q.id, err)
}

// writeJSON and writeRaw end a handler.
func writeJSON(w http.ResponseWriter, status int, v any) error   { return reply.JSON(w, status, v) }
func writeRaw(w http.ResponseWriter, status int, b []byte) error { return reply.Raw(w, status, b) }

// empty is the answer of requests that have nothing to say.
func empty(w http.ResponseWriter) error { return writeRaw(w, http.StatusOK, []byte("{}")) }

// Tenant is what this API must know of a tenant.
type Tenant struct {
	Name matrix.ServerName
	// PublicURL is where clients reach it, such as https://matrix.acme.example.
	PublicURL string
	// Host is the host of PublicURL, with its port if it has one.
	Host string
}

func (a *API) tenant(name matrix.ServerName) Tenant {
	i := slices.IndexFunc(a.Tenants, func(t Tenant) bool { return t.Name == name })
	return a.Tenants[max(i, 0)]
}

func (a *API) now() time.Time { return a.Now() }
