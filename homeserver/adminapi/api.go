// Package adminapi is the HTTP of the admin API, /_hansa/admin/v1: accounts, tenants, agreements, the policy and the decision log.
//
// It is served twice. On the unix socket in the data directory, which only the user that runs the server can open, whoever asks is
// the operator and may act for every tenant. On the admin listener a request carries the access token of a user with admin rights
// and is about that user's tenant, whatever it names: identifiers of other tenants are not found. Either way the rules of Rego
// decide: every route stands in one table (routes.go) with the decision point and the action that are asked, and a test fails on
// one that has none. An action that needs a second person takes that person's token beside the first one.
//
// The file openapi.yaml describes the routes and is served by the API itself. No answer holds a password, its hash, a token or a
// private key.
package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/homeserver/reply"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Headers of the API.
const (
	// HeaderReason says why an administrator does something.
	HeaderReason = "Hansa-Reason"
	// HeaderApproval carries the access token of a second person who approves.
	HeaderApproval = "Hansa-Approval-Token"
)

// Tenant is what the API tells of a hosted domain.
type Tenant struct {
	Name                    matrix.ServerName
	PublicURL, Registration string
	KeyID, VerifyKey        string
}

// Deps is what the API needs.
type Deps struct {
	DB         *storage.DB
	Policy     *policy.Engine
	Accounts   *account.Service
	Rooms      *room.Service
	Agreements *agreement.Service
	Bridges    Bridges
	// Tenants are the hosted domains in the order of the configuration.
	Tenants []Tenant
	Version string
	Log     *logrus.Entry
	Now     func() time.Time
}

// API serves the admin API.
type API struct{ Deps }

// New returns an API that is ready to serve.
func New(d Deps) *API {
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Log = d.Log.WithField("pkg", "adminapi")
	return &API{d}
}

// OperatorHandler serves the API to the operator: everybody who can reach it. It is for the unix socket alone.
func (a *API) OperatorHandler() http.Handler { return a.handler(true) }

// Handler serves the API to users with admin rights.
func (a *API) Handler() http.Handler { return a.handler(false) }

type handler func(w http.ResponseWriter, q *request) error

// request is an HTTP request on its way through a handler.
type request struct {
	*http.Request
	id    string
	route *route
	// session is the user who asks, nil for the operator.
	session *account.Session
	// approver is the second person, empty when there is none.
	approver string
}

func (a *API) handler(operator bool) http.Handler {
	mux := http.NewServeMux()
	known := map[string]bool{}
	for _, r := range a.routes() {
		mux.HandleFunc(r.method+" "+prefix+r.path, func(w http.ResponseWriter, hr *http.Request) { a.serve(w, &request{Request: hr, route: &r}, operator) })
		if !known[r.path] {
			known[r.path] = true
			mux.HandleFunc(prefix+r.path, func(w http.ResponseWriter, hr *http.Request) {
				a.writeError(w, &request{Request: hr}, matrix.Errorf(http.StatusMethodNotAllowed, matrix.CodeUnrecognized, "This endpoint does not take %s.", hr.Method))
			})
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if _, pattern := mux.Handler(r); pattern == "" || dotted(r.URL.EscapedPath()) {
			a.writeError(w, &request{Request: r}, matrix.Errorf(http.StatusNotFound, matrix.CodeUnrecognized, "There is no such endpoint."))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// dotted tells whether a path has segments that the mux would redirect for.
func dotted(escaped string) bool {
	for i, s := range strings.Split(escaped, "/") {
		if s == "." || s == ".." || s == "" && i > 0 {
			return true
		}
	}
	return false
}

func (a *API) serve(w http.ResponseWriter, q *request, operator bool) {
	q.id = reply.RequestID()
	w.Header().Set("X-Request-Id", q.id)
	start := a.Now()
	defer func() {
		if p := recover(); p != nil {
			a.Log.WithFields(logrus.Fields{"request_id": q.id, "err": fmt.Sprint(p), "stack": string(debug.Stack())}).Error("panic in a handler")
			a.writeError(w, q, errors.New("panic"))
		}
	}()
	err := a.admit(q, operator)
	if err == nil {
		err = q.route.fn(w, q)
	}
	if err != nil {
		a.writeError(w, q, err)
	}
	if q.Method != http.MethodGet {
		log := a.Log.WithFields(logrus.Fields{"request_id": q.id, "user_id": q.who(), "action": q.route.action, "duration": a.Now().Sub(start).String()})
		if err != nil {
			log = log.WithError(err)
		}
		log.Info("admin request")
	}
}

// admit finds out who asks, and puts the question of the route unless the service below does.
func (a *API) admit(q *request, operator bool) error {
	if q.route.public {
		return nil
	}
	if !operator {
		var err error
		if q.session, err = a.authenticate(q.Context(), q.Header.Get("Authorization"), "Bearer "); err != nil {
			return err
		}
		if q.route.operator {
			return matrix.Forbidden("Only the operator of the server may do this, on the machine itself.")
		}
	}
	if q.route.none != "" {
		return nil
	}
	if err := a.findApprover(q, q.route.action); err != nil {
		return err
	}
	if q.route.below {
		return nil
	}
	tenants, err := a.tenantsOf(q)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		if err := a.ask(q, q.route.point, q.route.action, t); err != nil {
			return err
		}
	}
	return nil
}

// authenticate returns the session of a token that follows scheme in the value of a header.
func (a *API) authenticate(ctx context.Context, header, scheme string) (*account.Session, error) {
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return nil, matrix.Errorf(http.StatusUnauthorized, matrix.CodeMissingToken, "This needs the access token of an administrator in the Authorization header.")
	}
	s, err := a.Accounts.Authenticate(ctx, strings.TrimSpace(header[len(scheme):]))
	if err != nil {
		return nil, err
	}
	return s, s.CheckWrite()
}

// findApprover looks at the token of the second person: somebody else of the same tenant, who may do the same. For the operator it is
// somebody of the tenant that the request is about (see approval).
func (a *API) findApprover(q *request, action string) error {
	token := q.Header.Get(HeaderApproval)
	if token == "" {
		return nil
	}
	s, err := a.authenticate(q.Context(), token, "")
	if err != nil {
		return err
	}
	second := *q
	second.session, second.approver = s, "operator"
	if q.session != nil {
		if s.Tenant != q.session.Tenant || s.UserID == q.session.UserID {
			return matrix.Forbidden("The approval must come from another administrator of the same tenant.")
		}
		second.approver = string(q.session.UserID)
	}
	if err := a.ask(&second, q.route.point, action, s.Tenant); err != nil {
		return err
	}
	q.approver = string(s.UserID)
	return nil
}

// ask puts a question about a tenant.
func (a *API) ask(q *request, point policy.Point, action string, tenant matrix.ServerName) error {
	actor := a.agreementActor(q, tenant)
	in := &policy.Input{Point: point, Time: a.Now(), Tenant: policy.Tenant{Name: string(tenant)}, Subject: actor.Party,
		Request: actor.Request, Admin: &policy.Admin{Action: action, Tenant: string(tenant), Reason: actor.Reason, Approver: actor.Approver}}
	if name := q.PathValue("partner"); name != "" {
		partner, err := agreement.ParsePartner(name)
		if err != nil {
			return err
		}
		in.Server = &policy.Server{Name: string(partner), Local: a.hosts(partner)}
	}
	if e := a.Policy.Decide(q.Context(), in).Error(); e != nil {
		return e
	}
	return nil
}

// writeError is the one place where errors become answers.
func (a *API) writeError(w http.ResponseWriter, q *request, err error) {
	reply.Refuse(q.Context(), w, a.Log, q.id, err)
}

// writeJSON ends a handler.
func writeJSON(w http.ResponseWriter, status int, v any) error { return reply.JSON(w, status, v) }

// client describes where the request came from; on the unix socket it has no address.
func (q *request) client() account.Client {
	c := account.Client{UserAgent: q.UserAgent()}
	if ap, err := netip.ParseAddrPort(q.RemoteAddr); err == nil {
		c.IP = ap.Addr().Unmap()
	}
	return c
}

func (q *request) who() string {
	if q.session == nil {
		return "operator"
	}
	return string(q.session.UserID)
}
