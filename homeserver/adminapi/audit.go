package adminapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

func (a *API) searchDecisions(w http.ResponseWriter, q *request) error {
	tenant, err := a.only(q)
	if err != nil {
		return err
	}
	v := q.URL.Query()
	f := storage.DecisionFilter{Tenant: string(tenant), Point: v.Get("point"), Subject: v.Get("subject"), Target: v.Get("target"),
		Room: v.Get("room"), Allow: v.Get("allow")}
	if f.Allow != "" && f.Allow != "true" && f.Allow != "false" {
		return matrix.InvalidParam("allow is true or false.")
	}
	if f.Since, err = q.moment("since"); err != nil {
		return err
	}
	if f.Until, err = q.moment("until"); err != nil {
		return err
	}
	if f.Before, err = q.number("before", 0, 0, 1<<62); err != nil {
		return err
	}
	limit, err := q.number("limit", 100, 1, maxPage)
	if err != nil {
		return err
	}
	var rows []storage.Decision
	err = a.DB.Read(q.Context(), func(tx *storage.Tx) (err error) { rows, err = tx.SearchDecisions(f, int(limit)); return err })
	if err != nil {
		return err
	}
	out := DecisionList{Decisions: []Decision{}}
	for i := range rows {
		d, err := decision(&rows[i], tenantOf(q))
		if err != nil {
			return err
		}
		d.Input = nil
		out.Decisions = append(out.Decisions, *d)
	}
	if len(rows) == int(limit) {
		out.Next = rows[len(rows)-1].Seq
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) showDecision(w http.ResponseWriter, q *request) error {
	d, err := a.loadDecision(q, q.PathValue("id"))
	if err != nil {
		return err
	}
	shown, err := decision(d, tenantOf(q))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, shown)
}

// loadDecision finds a record. Those of other tenants do not exist for a user.
func (a *API) loadDecision(q *request, id string) (*storage.Decision, error) {
	var d storage.Decision
	err := a.DB.Read(q.Context(), func(tx *storage.Tx) (err error) { d, err = tx.LoadDecision(id); return err })
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	if err != nil || q.session != nil && d.Tenant != string(q.session.Tenant) {
		return nil, matrix.NotFound("There is no decision %.100q. Allowed acts are recorded only where the policy asks for it.", id)
	}
	return &d, nil
}

func (a *API) verifyDecisions(w http.ResponseWriter, q *request) error {
	out := Verification{Intact: true}
	err := a.DB.View(q.Context(), func(tx *storage.Tx) (err error) { out.Records, err = tx.VerifyDecisions(); return err })
	var broken *storage.ChainError
	switch {
	case errors.As(err, &broken):
		out.Intact, out.BrokenAt = false, broken.Seq
	case err != nil:
		return err
	}
	if q.session != nil { // how much the tenants do together is none of their business
		out.Records, out.BrokenAt = 0, 0
	}
	return writeJSON(w, http.StatusOK, out)
}

// tenantOf is the tenant whose eyes an answer is for, empty for the operator.
func tenantOf(q *request) string {
	if q.session == nil {
		return ""
	}
	return string(q.session.Tenant)
}

// decision reads a record. For a tenant it leaves out what other tenants know of their people and how their rules are called.
func decision(row *storage.Decision, eyes string) (*Decision, error) {
	var detail struct {
		Tenants []string        `json:"tenants"`
		Reasons []policy.Reason `json:"reasons"`
		Error   string          `json:"error"`
		Input   jsontext.Value  `json:"input"`
	}
	if err := json.Unmarshal(row.Detail, &detail, jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, err
	}
	d := &Decision{Seq: row.Seq, ID: row.ID, Time: time.UnixMilli(row.TS).UTC(), Tenant: row.Tenant, Point: row.Point, Revision: row.Revision,
		Allow: row.Allow, Subject: row.Subject, Target: row.Target, Room: row.Room, Reasons: detail.Reasons, Error: detail.Error, Input: detail.Input}
	var asked struct {
		Admin struct {
			Action string `json:"action"`
		} `json:"admin"`
	}
	if len(detail.Input) > 0 {
		if err := json.Unmarshal(detail.Input, &asked, jsontext.AllowInvalidUTF8(true)); err != nil {
			return nil, err
		}
		d.Action = asked.Admin.Action
	}
	if eyes == "" {
		return d, nil
	}
	d.Reasons, d.Error = maskReasons(d.Reasons, eyes), ""
	var err error
	d.Input, err = maskInput(d.Input, eyes)
	return d, err
}

// maskReasons leaves the names of other tenants' rules out.
func maskReasons(list []policy.Reason, eyes string) []policy.Reason {
	out := make([]policy.Reason, len(list))
	for i, r := range list {
		out[i] = policy.Reason{Code: r.Code, Message: r.Message, Rule: maskRule(r.Rule, eyes)}
	}
	return out
}

// maskRule is the name of a rule as a tenant may see it: the library's and the own ones, without the directories of the machine.
func maskRule(rule, eyes string) string {
	switch i := strings.Index(rule, "/"+eyes+"/"); {
	case strings.HasPrefix(rule, "hansa."), strings.HasPrefix(rule, "builtin:"), strings.HasPrefix(rule, `tenants["`+eyes+`"]`):
		return rule
	case i >= 0:
		return rule[i+1:]
	}
	return ""
}

// maskInput leaves out of a recorded input what another tenant knows of its people.
func maskInput(in jsontext.Value, eyes string) (jsontext.Value, error) {
	if len(in) == 0 {
		return nil, nil
	}
	var doc map[string]any
	if err := json.Unmarshal(in, &doc, jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, err
	}
	for _, side := range []string{"subject", "target"} {
		if p, ok := doc[side].(map[string]any); ok && p["tenant"] != eyes {
			doc[side] = map[string]any{"kind": p["kind"], "id": p["id"], "tenant": p["tenant"]}
		}
	}
	if r, ok := doc["room"].(map[string]any); ok {
		delete(r, "pools")
	}
	return json.Marshal(doc, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
}
