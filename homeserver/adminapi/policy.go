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

// question makes the input of a question about people and rooms that exist, or might.
func (a *API) question(q *request, body *Question) (*policy.Input, error) {
	info, ok := findPoint(body.Point)
	if !ok {
		return nil, matrix.InvalidParam("There is no decision point %.50q; `hansa policy points` lists them.", body.Point)
	}
	subject, err := a.party(q, "subject", body.Subject)
	if err != nil {
		return nil, err
	}
	if subject == nil {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "Say who the subject is.")
	}
	if q.session != nil && subject.Tenant != string(q.session.Tenant) {
		return nil, matrix.NotFound("There is no account %s.", subject.ID)
	}
	if body.IP != "" {
		subject = subject.With(subject.Device, &policy.Network{IP: body.IP})
	}
	in := &policy.Input{Point: info.Point, Time: a.Now(), Tenant: policy.Tenant{Name: subject.Tenant}, Subject: subject,
		Request: &policy.Request{IP: body.IP, Via: "client"}}
	if in.Target, err = a.party(q, "target", body.Target); err != nil {
		return nil, err
	}
	if body.Server != "" {
		in.Server = &policy.Server{Name: body.Server, Local: a.hosts(matrix.ServerName(body.Server))}
	}
	if err := a.setting(q, body, in); err != nil {
		return nil, err
	}
	a.act(body, in)
	return in, nil
}

// party finds who an id stands for.
func (a *API) party(q *request, member, id string) (*policy.Party, error) {
	if id == "" {
		return nil, nil
	}
	user, err := matrix.ParseUserID(id)
	if err != nil {
		return nil, matrix.InvalidParam("The %s %.100q is not a user ID.", member, id)
	}
	return a.Accounts.Party(q.Context(), user)
}

// setting fills in where it happens: a room that exists, or one that the subject has made.
func (a *API) setting(q *request, body *Question, in *policy.Input) error {
	if body.Room != "" {
		id, err := matrix.ParseRoomID(body.Room)
		if err != nil {
			return matrix.InvalidParam("%.100q is not a room ID.", body.Room)
		}
		in.Room, in.Audience, err = a.Rooms.PolicyFacts(q.Context(), id, matrix.UserID(in.Subject.ID))
		if err != nil || q.session != nil && in.Room.Tenant != string(q.session.Tenant) && in.Room.Membership == "" {
			return matrix.NotFound("There is no room %.100q.", body.Room)
		}
		return nil
	}
	if !aboutRooms(in.Point) {
		return nil
	}
	member := "join"
	if in.Point == policy.RoomJoin || in.Point == policy.RoomKnock {
		member = ""
	}
	servers := []string{in.Subject.Tenant}
	in.Room = &policy.Room{Version: matrix.DefaultRoomVersion, Tenant: in.Subject.Tenant, Creator: in.Subject.ID, JoinRule: "invite",
		HistoryVisibility: "shared", Federate: true, Membership: member, Pools: []string{}, Labels: []string{}, Members: 1}
	in.Audience = policy.NewAudience()
	if member != "" {
		in.Audience.Add(in.Subject)
	}
	for _, id := range body.With {
		p, err := a.party(q, "member", id)
		if err != nil {
			return err
		}
		in.Audience.Add(p)
		in.Room.Members++
		servers = addTo(servers, p.Tenant)
	}
	in.Room.Servers = servers
	for _, s := range servers {
		if a.hosts(matrix.ServerName(s)) {
			in.Room.Tenants = addTo(in.Room.Tenants, s)
		}
	}
	return nil
}

// act fills in what would be done.
func (a *API) act(body *Question, in *policy.Input) {
	switch in.Point {
	case policy.AdminAction, policy.PolicyChange, policy.PartnerChange:
		in.Admin = &policy.Admin{Action: body.Action, Tenant: in.Tenant.Name}
	case policy.AccountLogin, policy.AccountManage, policy.AccountRegister, policy.ProfileWrite:
		in.Account = &policy.Account{Username: matrix.UserID(in.Subject.ID).Localpart(), Field: body.Action, Via: "password"}
	case policy.MediaUpload, policy.MediaDownload:
		in.Media = &policy.Media{Server: in.Subject.Tenant, MimeType: body.MimeType, Size: body.Size}
		if in.Target != nil {
			in.Media.Server = in.Target.Tenant
		}
	case policy.EventSend, policy.EventReceive, policy.EventRedact, policy.RoomState, policy.ToDeviceSend:
		in.Event = &policy.Event{Type: body.EventType, MsgType: body.MsgType, MimeType: body.MimeType, Size: int(min(body.Size, 1<<30)),
			Encrypted: body.EventType == "m.room.encrypted", Domains: []string{}}
		if in.Event.Type == "" {
			in.Event.Type = "m.room.message"
		}
	case policy.RoomInvite, policy.RoomJoin, policy.RoomKnock:
		in.Event = &policy.Event{Type: "m.room.member", Membership: strings.TrimPrefix(string(in.Point), "room."), Domains: []string{}}
	}
}

func aboutRooms(p policy.Point) bool {
	for _, prefix := range []string{"room.", "event.", "typing.", "receipt.", "search."} {
		if strings.HasPrefix(string(p), prefix) {
			return true
		}
	}
	return p == policy.DirectoryRooms
}

func findPoint(p policy.Point) (policy.PointInfo, bool) {
	for _, info := range policy.Points() {
		if info.Point == p {
			return info, true
		}
	}
	return policy.PointInfo{}, false
}

func addTo(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
