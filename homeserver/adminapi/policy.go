package adminapi

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"hansa/matrix"
	"hansa/policy"
)

// policyStatus tells which rules are active, and what was wrong with those that were not taken. A user is told of the own tenant's
// files only.
func (a *API) policyStatus(w http.ResponseWriter, q *request) error {
	st := a.Policy.Status()
	if q.session == nil {
		return writeJSON(w, http.StatusOK, st)
	}
	eyes := string(q.session.Tenant)
	own := func(file string) (string, bool) {
		file = filepath.ToSlash(file)
		if i := strings.Index(file, "/"+eyes+"/"); i >= 0 {
			return file[i+1:], true
		}
		return "", false
	}
	var files []policy.FileStatus
	for _, f := range st.Files {
		if name, ok := own(f.File); ok {
			files = append(files, policy.FileStatus{File: name, SHA256: f.SHA256})
		}
	}
	st.Files, st.Bundles, st.Tenants = files, []string{}, []string{eyes}
	st.Tests, st.Agreements, st.Classes, st.Memo = policy.TestSummary{}, 0, 0, 0
	if st.Refused != nil {
		mine := policy.Failure{At: st.Refused.At}
		for _, p := range st.Refused.Problems {
			if name, ok := own(p.File); ok {
				p.File = name
				mine.Problems = append(mine.Problems, p)
			}
		}
		if len(mine.Problems) == 0 {
			mine.Problems = policy.Problems{{Message: "Another part of the policy is not sound; the last good one is active."}}
		}
		st.Refused = &mine
	}
	return writeJSON(w, http.StatusOK, st)
}

// reload reads the bundles now, for those who do not want to wait for the watcher.
func (a *API) reload(w http.ResponseWriter, q *request) error {
	err := a.Policy.Reload(q.Context())
	out := Reloaded{Active: err == nil, Revision: a.Policy.Revision()}
	if err != nil {
		var p policy.Problem
		if !errors.As(err, &out.Problems) && errors.As(err, &p) {
			out.Problems = policy.Problems{p}
		}
		if len(out.Problems) == 0 {
			out.Problems = policy.Problems{{Message: err.Error()}}
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// explain answers a question afresh and tells what every layer said. Nothing is recorded.
func (a *API) explain(w http.ResponseWriter, q *request) error {
	var body Question
	if err := q.decode(w, &body); err != nil {
		return err
	}
	var out Answer
	var in *policy.Input
	var err error
	if body.DecisionID != "" {
		in, err = a.recorded(q, body.DecisionID, &out)
	} else {
		in, err = a.question(q, &body)
	}
	if err != nil {
		return err
	}
	x := a.Policy.Explain(q.Context(), in)
	out.Decision, out.Layers, out.Text = x.Decision, x.Layers, x.Text
	if q.session != nil {
		out.mask(string(q.session.Tenant))
	}
	return writeJSON(w, http.StatusOK, out)
}

// mask leaves out what the rules of other tenants are and said.
func (o *Answer) mask(eyes string) {
	o.Text = ""
	o.Decision.Reasons = maskReasons(o.Decision.Reasons, eyes)
	layers := make([]policy.LayerTrace, 0, len(o.Layers))
	for _, l := range o.Layers {
		if l.Tenant != eyes {
			l = policy.LayerTrace{Tenant: l.Tenant, Layer: "another tenant", Allow: l.Allow}
		}
		l.Reasons = maskReasons(l.Reasons, eyes)
		rules := make([]string, 0, len(l.Rules))
		for _, r := range l.Rules {
			if r = maskRule(r, eyes); r != "" {
				rules = append(rules, r)
			}
		}
		l.Rules = rules
		layers = append(layers, l)
	}
	o.Layers = layers
}

// recorded is the input of a decision of the log.
func (a *API) recorded(q *request, id string, out *Answer) (*policy.Input, error) {
	row, err := a.loadDecision(q, id)
	if err != nil {
		return nil, err
	}
	whole, err := decision(row, "")
	if err != nil {
		return nil, err
	}
	if out.Recorded, err = decision(row, tenantOf(q)); err != nil {
		return nil, err
	}
	in, err := policy.ParseInput(whole.Input)
	if err != nil {
		return nil, err
	}
	return in, nil
}

// question makes the input of a question. A user asks about what people of the own tenant might do, in rooms that they can see.
func (a *API) question(q *request, body *Question) (*policy.Input, error) {
	f := QuestionFacts{Now: a.Now, Hosts: func(name string) bool { return a.hosts(matrix.ServerName(name)) },
		Party: func(id matrix.UserID) (*policy.Party, error) { return a.Accounts.Party(q.Context(), id) },
		Room: func(id matrix.RoomID, user matrix.UserID) (*policy.Room, *policy.Audience, error) {
			return a.Rooms.PolicyFacts(q.Context(), id, user)
		}}
	in, err := body.Input(f)
	if err != nil {
		return nil, err
	}
	if q.session == nil {
		return in, nil
	}
	if in.Subject.Tenant != string(q.session.Tenant) {
		return nil, matrix.NotFound("There is no account %s.", in.Subject.ID)
	}
	if body.Room != "" && in.Room.Tenant != string(q.session.Tenant) && in.Room.Membership == "" {
		return nil, noRoom(body.Room)
	}
	return in, nil
}
