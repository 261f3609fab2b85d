package clientapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/membership"
	"hansa/matrix"
	"hansa/policy"
)

func (a *API) memberRoutes() []route {
	const room = "/_matrix/client/v3/rooms/{roomId}"
	return []route{
		{method: "POST", path: room + "/join", access: user, point: policy.RoomJoin, fn: a.join},
		{method: "POST", path: "/_matrix/client/v3/join/{roomIdOrAlias}", access: user, point: policy.RoomJoin, fn: a.joinAny},
		{method: "POST", path: "/_matrix/client/v3/knock/{roomIdOrAlias}", access: user, point: policy.RoomKnock, fn: a.knock},
		{method: "POST", path: room + "/leave", access: user, point: policy.RoomLeave, reads: true, fn: a.leave},
		{method: "POST", path: room + "/forget", access: user, point: policy.RoomLeave, reads: true, fn: a.forget},
		{method: "POST", path: room + "/invite", access: user, point: policy.RoomInvite, fn: a.invite},
		{method: "POST", path: room + "/kick", access: user, point: policy.RoomModerate, fn: a.kick},
		{method: "POST", path: room + "/ban", access: user, point: policy.RoomModerate, fn: a.ban},
		{method: "POST", path: room + "/unban", access: user, point: policy.RoomModerate, fn: a.unban},
	}
}

// reason reads a body that may hold nothing but a reason, or nothing at all.
func (r *request) reason() (string, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	err := r.decodeOptional(&body)
	return body.Reason, err
}

// spec: client-server-api#post_matrixclientv3roomsroomidjoin
func (a *API) join(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	return a.enter(w, r, &place{id: id}, a.Members.Join)
}

// spec: client-server-api#post_matrixclientv3joinroomidoralias
func (a *API) joinAny(w http.ResponseWriter, r *request) error {
	p, err := a.roomOrAlias(r)
	if err != nil {
		return err
	}
	return a.enter(w, r, p, a.Members.Join)
}

// place is a room that a client wants to come into: via are the servers that the client names, residents those that a directory does.
type place struct {
	id             matrix.RoomID
	via, residents []matrix.ServerName
}

// enter runs what brings the caller nearer to a room.
func (a *API) enter(w http.ResponseWriter, r *request, p *place,
	fn func(ctx context.Context, c membership.Caller, id matrix.RoomID, reason string, via ...matrix.ServerName) error) error {
	reason, err := r.reason()
	if err != nil {
		return err
	}
	c := r.member()
	c.Residents = p.residents
	if err := fn(r.Context(), c, p.id, reason, p.via...); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"room_id": p.id})
}

// maxVia is how many servers a client may name for one room.
const maxVia = 50

// via reads the servers that may help into a room; server_name is what they were called before.
func (r *request) via() ([]matrix.ServerName, error) {
	q := r.URL.Query()
	list := q["via"]
	if len(list) == 0 {
		list = q["server_name"]
	}
	if len(list) > maxVia {
		return nil, matrix.InvalidParam("At most %d servers can be named.", maxVia)
	}
	var out []matrix.ServerName
	for _, text := range list {
		name, err := matrix.ParseServerName(text)
		if err != nil {
			return nil, matrix.InvalidParam("%.100q is not a server name.", text)
		}
		out = append(out, name)
	}
	return out, nil
}

// roomOrAlias finds the room that the path names.
func (a *API) roomOrAlias(r *request) (*place, error) {
	p := &place{}
	var err error
	if p.via, err = r.via(); err != nil {
		return nil, err
	}
	text := r.param("roomIdOrAlias")
	if strings.HasPrefix(text, "#") {
		alias, err := matrix.ParseRoomAlias(text)
		if err != nil {
			return nil, matrix.InvalidParam("%.100q is not a room alias.", text)
		}
		p.id, p.residents, err = a.Directory.Resolve(r.Context(), r.finder(), alias)
		return p, err
	}
	if p.id, err = matrix.ParseRoomID(text); err != nil {
		return nil, matrix.InvalidParam("%.100q is neither a room ID nor a room alias.", text)
	}
	return p, nil
}

// spec: client-server-api#post_matrixclientv3knockroomidoralias
func (a *API) knock(w http.ResponseWriter, r *request) error {
	p, err := a.roomOrAlias(r)
	if err != nil {
		return err
	}
	return a.enter(w, r, p, a.Members.Knock)
}

// spec: client-server-api#post_matrixclientv3roomsroomidleave
func (a *API) leave(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	reason, err := r.reason()
	if err != nil {
		return err
	}
	if err := a.Members.Leave(r.Context(), r.member(), id, reason); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv3roomsroomidforget
func (a *API) forget(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	if err := a.Members.Forget(r.Context(), r.member(), id); err != nil {
		return err
	}
	return empty(w)
}

// onUser runs what somebody does to another user in a room.
func (r *request) onUser(w http.ResponseWriter, fn func(ctx context.Context, c membership.Caller, id matrix.RoomID, target matrix.UserID, reason string) error) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	var body struct {
		UserID   *string        `json:"user_id"`
		Medium   string         `json:"medium"`
		IDServer jsontext.Value `json:"id_server"`
		IDToken  jsontext.Value `json:"id_access_token"`
		Reason   string         `json:"reason"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	switch {
	case body.UserID == nil && (body.IDServer != nil || body.IDToken != nil):
		return membership.ErrNoIdentityServer()
	case body.UserID == nil && body.Medium != "":
		return matrix.Errorf(http.StatusForbidden, "M_THREEPID_DENIED", "Nobody can be invited by e-mail or phone on this server; invite by user ID.")
	case body.UserID == nil:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member user_id is missing.")
	}
	target, err := matrix.ParseUserID(*body.UserID)
	if err != nil {
		return matrix.InvalidParam("%.100q is not a user ID.", *body.UserID)
	}
	if err := fn(r.Context(), r.member(), id, target, body.Reason); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv3roomsroomidinvite
func (a *API) invite(w http.ResponseWriter, r *request) error {
	return r.onUser(w, a.Members.Invite)
}

// spec: client-server-api#post_matrixclientv3roomsroomidkick
func (a *API) kick(w http.ResponseWriter, r *request) error { return r.onUser(w, a.Members.Kick) }

// spec: client-server-api#post_matrixclientv3roomsroomidban
func (a *API) ban(w http.ResponseWriter, r *request) error { return r.onUser(w, a.Members.Ban) }

// spec: client-server-api#post_matrixclientv3roomsroomidunban
func (a *API) unban(w http.ResponseWriter, r *request) error { return r.onUser(w, a.Members.Unban) }
