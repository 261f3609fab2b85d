package adminapi

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/policy"
)

const (
	maxBody  = 256 << 10
	maxDepth = 32
)

// decode reads the body as a JSON object with members that are known; an empty body is an empty object.
func (q *request) decode(w http.ResponseWriter, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "The body may have at most %d bytes.", maxBody)
	case err != nil:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body could not be read.")
	case len(body) == 0:
		return nil
	}
	if depth(body) > maxDepth {
		return matrix.BadJSON("The JSON is nested more than %d deep.", maxDepth)
	}
	err = json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return matrix.BadJSON("There is no member %s here.", semantic.JSONPointer)
	case errors.As(err, &semantic):
		return matrix.BadJSON("The value of %s has the wrong type.", orBody(string(semantic.JSONPointer)))
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		return matrix.BadJSON("The JSON is ambiguous: %v.", err)
	case err != nil:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeNotJSON, "The body is not JSON: %v.", err)
	}
	return nil
}

func orBody(pointer string) string {
	if pointer == "" {
		return "the body"
	}
	return pointer
}

// depth is how deeply brackets are nested, found without recursion.
func depth(b []byte) int {
	level, deepest, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// noSuchTenant is the answer about every domain that the caller has nothing to do with, hosted here or not.
func noSuchTenant(name string) error { return matrix.NotFound("There is no tenant %.100q here.", name) }

// tenant is the tenant that a request is about. That of a user is the session's; name, if not empty, must be the same. The operator
// names it, and need not where there is only one.
func (a *API) tenant(q *request, name string) (matrix.ServerName, error) {
	if q.session != nil {
		if name != "" && name != string(q.session.Tenant) {
			return "", noSuchTenant(name)
		}
		return q.session.Tenant, nil
	}
	if name == "" && len(a.Tenants) == 1 {
		return a.Tenants[0].Name, nil
	}
	if name == "" {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "Say which tenant is meant.")
	}
	if !a.hosts(matrix.ServerName(name)) {
		return "", noSuchTenant(name)
	}
	return matrix.ServerName(name), nil
}

func (a *API) hosts(name matrix.ServerName) bool {
	return slices.ContainsFunc(a.Tenants, func(t Tenant) bool { return t.Name == name })
}

// tenantsOf are the tenants that a request is about: the session's, the one that the path or the query names, or for the operator who
// names none all of them.
func (a *API) tenantsOf(q *request) ([]matrix.ServerName, error) {
	name := q.PathValue("tenant")
	if name == "" {
		name = q.URL.Query().Get("tenant")
	}
	if q.session == nil && name == "" {
		var all []matrix.ServerName
		for _, t := range a.Tenants {
			all = append(all, t.Name)
		}
		return all, nil
	}
	t, err := a.tenant(q, name)
	return []matrix.ServerName{t}, err
}

// only is the tenant that answers are limited to: the session's, or the one that the operator names; empty for all.
func (a *API) only(q *request) (matrix.ServerName, error) {
	list, err := a.tenantsOf(q)
	if err != nil || q.session == nil && q.PathValue("tenant") == "" && q.URL.Query().Get("tenant") == "" {
		return "", err
	}
	return list[0], nil
}

// user is the account that the path names. Accounts of other tenants are not found.
func (a *API) user(q *request) (matrix.UserID, error) {
	id, err := matrix.ParseUserID(q.PathValue("user_id"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a user ID.", q.PathValue("user_id"))
	}
	return id, a.own(q, id)
}

func (a *API) own(q *request, id matrix.UserID) error {
	if q.session != nil && id.Server() != q.session.Tenant {
		return matrix.NotFound("There is no account %s.", id)
	}
	return nil
}

// notSelf refuses what would lock administrators out of their own account.
func (q *request) notSelf(id matrix.UserID) error {
	if q.session != nil && q.session.UserID == id {
		return matrix.Errorf(http.StatusConflict, matrix.CodeBadState, "Another administrator has to do this to your account; or the operator, on the machine itself.")
	}
	return nil
}

// approval is the second person who approves what is done to a tenant: one of its own, or nobody.
func (q *request) approval(tenant matrix.ServerName) matrix.UserID {
	if id := matrix.UserID(q.approver); id.Server() == tenant || q.approver == "operator" {
		return id
	}
	return ""
}

// actor is who asks the account service to do something to a tenant.
func (a *API) actor(q *request, tenant matrix.ServerName) account.Actor {
	if q.session == nil {
		return account.Operator(q.Header.Get(HeaderReason)).ApprovedBy(q.approval(tenant))
	}
	return account.AdminOf(account.Caller{Session: q.session, Client: q.client()}, q.Header.Get(HeaderReason), string(q.approval(tenant)))
}

// agreementActor is who asks, to the policy and to agreements.
func (a *API) agreementActor(q *request, tenant matrix.ServerName) agreement.Actor {
	c := q.client()
	out := agreement.Actor{Request: &policy.Request{UserAgent: clip(c.UserAgent, 256), Via: "admin"}, Reason: q.Header.Get(HeaderReason),
		Approver: string(q.approval(tenant))}
	if c.IP.IsValid() {
		out.Request.IP = c.IP.String()
	}
	if q.session == nil {
		out.Party = &policy.Party{Kind: "operator", ID: "operator", Tenant: string(tenant), Local: true, Listed: true}
		out.Request.Via = "internal"
	} else {
		out.Party = q.session.Party.With(q.session.Party.Device, &policy.Network{IP: out.Request.IP})
	}
	return out
}

func clip(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}

// number reads an integer of the query string, clamped to [low, high].
func (q *request) number(name string, def, low, high int64) (int64, error) {
	v := q.URL.Query().Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, matrix.InvalidParam("%s must be a number.", name)
	}
	return min(max(n, low), high), nil
}

// moment reads a time of the query string as ms, 0 when it is absent.
func (q *request) moment(name string) (int64, error) {
	v := q.URL.Query().Get(name)
	if v == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return 0, matrix.InvalidParam("%s must be a time such as 2026-01-31T18:00:00Z.", name)
	}
	return t.UnixMilli(), nil
}
