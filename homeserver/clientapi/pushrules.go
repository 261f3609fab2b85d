package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/pushrule"
)

func (a *API) pushRuleRoutes() []route {
	const all = "/_matrix/client/v3/pushrules"
	const rule = all + "/global/{kind}/{ruleId}"
	const none = "a user's own rules, which only decide about the user's own notifications"
	return []route{
		{method: "GET", path: all + "/", aliases: []string{all}, access: user, none: none, fn: a.getPushRules},
		{method: "GET", path: all + "/global/", aliases: []string{all + "/global"}, access: user, none: none, fn: a.getGlobalPushRules},
		{method: "GET", path: rule, access: user, none: none, fn: a.getPushRule},
		{method: "PUT", path: rule, access: user, none: none, fn: a.putPushRule, reads: true},
		{method: "DELETE", path: rule, access: user, none: none, fn: a.deletePushRule, reads: true},
		{method: "GET", path: rule + "/enabled", access: user, none: none, fn: a.getPushRuleEnabled},
		{method: "PUT", path: rule + "/enabled", access: user, none: none, fn: a.putPushRuleEnabled, reads: true},
		{method: "GET", path: rule + "/actions", access: user, none: none, fn: a.getPushRuleActions},
		{method: "PUT", path: rule + "/actions", access: user, none: none, fn: a.putPushRuleActions, reads: true},
	}
}

// spec: client-server-api#get_matrixclientv3pushrules
func (a *API) getPushRules(w http.ResponseWriter, r *request) error {
	content, err := a.PushRules.Content(r.Context(), r.session.UserID)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, content)
}

// spec: client-server-api#get_matrixclientv3pushrulesglobal
func (a *API) getGlobalPushRules(w http.ResponseWriter, r *request) error {
	rules, err := a.PushRules.Rules(r.Context(), r.session.UserID)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rules)
}

// pushRule finds the rule in the path among the caller's rules.
func (a *API) pushRule(r *request) (*pushrule.Rule, error) {
	kind, err := pushrule.ParseKind(r.param("kind"))
	if err != nil {
		return nil, err
	}
	rules, err := a.PushRules.Rules(r.Context(), r.session.UserID)
	if err != nil {
		return nil, err
	}
	return rules.Find(kind, r.param("ruleId"))
}

// spec: client-server-api#get_matrixclientv3pushrulesglobalkindruleid
func (a *API) getPushRule(w http.ResponseWriter, r *request) error {
	rule, err := a.pushRule(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rule)
}

// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleid
func (a *API) putPushRule(w http.ResponseWriter, r *request) error {
	kind, err := pushrule.ParseKind(r.param("kind"))
	if err != nil {
		return err
	}
	var draft pushrule.Draft
	if err := r.decode(&draft); err != nil {
		return err
	}
	query := r.values()
	place := pushrule.Place{Before: query.Get("before"), After: query.Get("after")}
	if err := a.PushRules.Put(r.Context(), r.session.UserID, kind, r.param("ruleId"), draft, place); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#delete_matrixclientv3pushrulesglobalkindruleid
func (a *API) deletePushRule(w http.ResponseWriter, r *request) error {
	kind, err := pushrule.ParseKind(r.param("kind"))
	if err != nil {
		return err
	}
	if err := a.PushRules.Delete(r.Context(), r.session.UserID, kind, r.param("ruleId")); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#get_matrixclientv3pushrulesglobalkindruleidenabled
func (a *API) getPushRuleEnabled(w http.ResponseWriter, r *request) error {
	rule, err := a.pushRule(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"enabled": rule.Enabled})
}

// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleidenabled
func (a *API) putPushRuleEnabled(w http.ResponseWriter, r *request) error {
	kind, err := pushrule.ParseKind(r.param("kind"))
	if err != nil {
		return err
	}
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Enabled == nil {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The body needs a boolean enabled.")
	}
	if err := a.PushRules.SetEnabled(r.Context(), r.session.UserID, kind, r.param("ruleId"), *body.Enabled); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#get_matrixclientv3pushrulesglobalkindruleidactions
func (a *API) getPushRuleActions(w http.ResponseWriter, r *request) error {
	rule, err := a.pushRule(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string][]jsontext.Value{"actions": rule.Actions})
}

// spec: client-server-api#put_matrixclientv3pushrulesglobalkindruleidactions
func (a *API) putPushRuleActions(w http.ResponseWriter, r *request) error {
	kind, err := pushrule.ParseKind(r.param("kind"))
	if err != nil {
		return err
	}
	var body struct {
		Actions []jsontext.Value `json:"actions"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if err := a.PushRules.SetActions(r.Context(), r.session.UserID, kind, r.param("ruleId"), body.Actions); err != nil {
		return err
	}
	return empty(w)
}
