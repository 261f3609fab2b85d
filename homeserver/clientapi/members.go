package clientapi

import (
	"context"
	"net/http"
	"strings"

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
	return a.joinRoom(w, r, id)
}

// spec: client-server-api#post_matrixclientv3joinroomidoralias
func (a *API) joinAny(w http.ResponseWriter, r *request) error {
	id, err := a.roomOrAlias(r)
	if err != nil {
		return err
	}
	return a.joinRoom(w, r, id)
}

func (a *API) joinRoom(w http.ResponseWriter, r *request, id matrix.RoomID) error {
	reason, err := r.reason()
	if err != nil {
		return err
	}
	if err := a.Members.Join(r.Context(), r.member(), id, reason); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"room_id": id})
}

// roomOrAlias finds the room that the path names.
func (a *API) roomOrAlias(r *request) (matrix.RoomID, error) {
	text := r.param("roomIdOrAlias")
	if strings.HasPrefix(text, "#") {
		alias, err := matrix.ParseRoomAlias(text)
		if err != nil {
			return "", matrix.InvalidParam("%.100q is not a room alias.", text)
		}
		id, _, err := a.Directory.Resolve(r.Context(), r.finder(), alias)
		return id, err
	}
	id, err := matrix.ParseRoomID(text)
	if err != nil {
		return "", matrix.InvalidParam("%.100q is neither a room ID nor a room alias.", text)
	}
	return id, nil
}

// spec: client-server-api#post_matrixclientv3knockroomidoralias
func (a *API) knock(w http.ResponseWriter, r *request) error {
	id, err := a.roomOrAlias(r)
	if err != nil {
		return err
	}
	reason, err := r.reason()
	if err != nil {
		return err
	}
	if err := a.Members.Knock(r.Context(), r.member(), id, reason); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"room_id": id})
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
		UserID *string `json:"user_id"`
		Medium string  `json:"medium"`
		Reason string  `json:"reason"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	switch {
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
