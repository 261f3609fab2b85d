package fedserver

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/ratelimit"
	"hansa/matrix"
	"hansa/policy"
)

// Members lets people of other servers into rooms and out of them. It is declared here so that the routes can be tested by themselves.
type Members interface {
	MakeJoin(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error)
	SendJoin(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte, omitMembers bool) (*federation.JoinAnswer, error)
	MakeLeave(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*federation.Template, error)
	SendLeave(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte) error
	MakeKnock(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error)
	SendKnock(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte) (*federation.KnockAnswer, error)
	// ReceiveInvite returns the invitation with the signature of the tenant.
	ReceiveInvite(ctx context.Context, as, origin matrix.ServerName, room matrix.RoomID, id matrix.EventID, invite federation.Invite) ([]byte, error)
}

// membershipLimit is the largest body of a membership handshake: an event, and for invitations what is shown of the room.
const membershipLimit = 2 << 20

func (a *API) membershipRoutes() []route {
	if a.Members == nil {
		return nil
	}
	const v1, v2 = "/_matrix/federation/v1/", "/_matrix/federation/v2/"
	return []route{
		{method: "GET", path: v1 + "make_join/{roomId}/{userId}", point: policy.RoomJoin, fn: a.makeJoin, acl: true},
		{method: "PUT", path: v2 + "send_join/{roomId}/{eventId}", point: policy.RoomJoin, fn: a.sendJoin, acl: true},
		{method: "GET", path: v1 + "make_leave/{roomId}/{userId}", access: leaving, point: policy.RoomLeave, fn: a.makeLeave, acl: true},
		{method: "PUT", path: v2 + "send_leave/{roomId}/{eventId}", access: leaving, point: policy.RoomLeave, fn: a.sendLeave, acl: true},
		{method: "GET", path: v1 + "make_knock/{roomId}/{userId}", point: policy.RoomKnock, fn: a.makeKnock, acl: true},
		{method: "PUT", path: v1 + "send_knock/{roomId}/{eventId}", point: policy.RoomKnock, fn: a.sendKnock, acl: true},
		{method: "PUT", path: v2 + "invite/{roomId}/{eventId}", point: policy.RoomInvite, fn: a.invite, acl: true, limit: membershipLimit},
		{method: "PUT", path: v1 + "invite/{roomId}/{eventId}", point: policy.RoomInvite, fn: a.inviteV1, acl: true, limit: membershipLimit},
	}
}

// member reads the room and the user of a make_* request; the user must be one of the asking server.
func (q *request) member() (matrix.RoomID, matrix.UserID, error) {
	room, err := q.roomID()
	if err != nil {
		return "", "", err
	}
	user, err := q.userID()
	if err != nil {
		return "", "", err
	}
	if user.Server() != q.origin {
		return "", "", matrix.Forbidden("%s is no user of your server.", user)
	}
	return room, user, nil
}

// membership reads the room and the event of a send_* request.
func (q *request) membership() (matrix.RoomID, matrix.EventID, jsontext.Value, error) {
	room, id, err := q.roomAndEvent()
	if err != nil {
		return "", "", nil, err
	}
	var event jsontext.Value
	if err := q.decode(&event); err != nil {
		return "", "", nil, err
	}
	return room, id, event, nil
}

// mayJoin bounds how fast people come into one room.
func (a *API) mayJoin(room matrix.RoomID) error {
	if a.Limits {
		if wait, ok := a.joins.Take(string(room)); !ok {
			return ratelimit.TooMany(wait)
		}
	}
	return nil
}

// spec: server-server-api#get_matrixfederationv1make_joinroomiduserid
// spec: server-server-api#joining-rooms
func (a *API) makeJoin(w http.ResponseWriter, q *request) error {
	room, user, err := q.member()
	if err != nil {
		return err
	}
	if err := a.mayJoin(room); err != nil {
		return err
	}
	return answer(w)(a.Members.MakeJoin(q.Context(), q.as, q.origin, room, user, q.versions()))
}

// versions are the room versions that the asking server knows.
func (q *request) versions() []string {
	if list := q.values()["ver"]; len(list) > 0 {
		return list[:min(len(list), 100)]
	}
	return []string{"1"}
}

// spec: server-server-api#put_matrixfederationv2send_joinroomideventid
func (a *API) sendJoin(w http.ResponseWriter, q *request) error {
	room, id, event, err := q.membership()
	if err != nil {
		return err
	}
	if err := a.mayJoin(room); err != nil {
		return err
	}
	joined, err := a.Members.SendJoin(q.Context(), q.as, q.origin, room, id, event, q.values().Get("omit_members") == "true")
	if err != nil {
		return err
	}
	rest := map[string]any{"servers_in_room": joined.ServersInRoom, "members_omitted": joined.MembersOmitted}
	if joined.Event != nil {
		rest["event"] = joined.Event
	}
	return writeEvents(w, rest, events[jsontext.Value]{"state", joined.State}, events[jsontext.Value]{"auth_chain", joined.AuthChain})
}

// spec: server-server-api#get_matrixfederationv1make_leaveroomiduserid
// spec: server-server-api#leaving-rooms-rejecting-invites
func (a *API) makeLeave(w http.ResponseWriter, q *request) error {
	room, user, err := q.member()
	if err != nil {
		return err
	}
	return answer(w)(a.Members.MakeLeave(q.Context(), q.as, q.origin, room, user))
}

// spec: server-server-api#put_matrixfederationv2send_leaveroomideventid
func (a *API) sendLeave(w http.ResponseWriter, q *request) error {
	room, id, event, err := q.membership()
	if err != nil {
		return err
	}
	return answer(w)(struct{}{}, a.Members.SendLeave(q.Context(), q.as, q.origin, room, id, event))
}

// spec: server-server-api#get_matrixfederationv1make_knockroomiduserid
// spec: server-server-api#knocking-rooms
func (a *API) makeKnock(w http.ResponseWriter, q *request) error {
	room, user, err := q.member()
	if err != nil {
		return err
	}
	if err := a.mayJoin(room); err != nil {
		return err
	}
	return answer(w)(a.Members.MakeKnock(q.Context(), q.as, q.origin, room, user, q.versions()))
}

// spec: server-server-api#put_matrixfederationv1send_knockroomideventid
func (a *API) sendKnock(w http.ResponseWriter, q *request) error {
	room, id, event, err := q.membership()
	if err != nil {
		return err
	}
	if err := a.mayJoin(room); err != nil {
		return err
	}
	return answer(w)(a.Members.SendKnock(q.Context(), q.as, q.origin, room, id, event))
}

// spec: server-server-api#put_matrixfederationv2inviteroomideventid
// spec: server-server-api#inviting-to-a-room
func (a *API) invite(w http.ResponseWriter, q *request) error {
	room, id, err := q.roomAndEvent()
	if err != nil {
		return err
	}
	var invite federation.Invite
	if err := q.decode(&invite); err != nil {
		return err
	}
	if invite.RoomVersion == "" || invite.Event.Kind() != '{' {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "An invitation has a room_version and an event.")
	}
	event, err := a.Members.ReceiveInvite(q.Context(), q.as, q.origin, room, id, invite)
	return answer(w)(federation.InviteAnswer{Event: event}, err)
}

// inviteV1 takes invitations into rooms of the versions 1 and 2 in the older form.
//
// spec: server-server-api#put_matrixfederationv1inviteroomideventid
func (a *API) inviteV1(w http.ResponseWriter, q *request) error {
	room, id, event, err := q.membership()
	if err != nil {
		return err
	}
	var more struct {
		Unsigned struct {
			State []jsontext.Value `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := json.Unmarshal(event, &more); err != nil {
		return matrix.BadJSON("The unsigned part of the event is malformed.")
	}
	signed, err := a.Members.ReceiveInvite(q.Context(), q.as, q.origin, room, id, federation.Invite{RoomVersion: "1", Event: event, InviteRoomState: more.Unsigned.State})
	return answer(w)([]any{http.StatusOK, federation.InviteAnswer{Event: signed}}, err)
}

// answer writes what a service has answered, or returns its error.
func answer(w http.ResponseWriter) func(v any, err error) error {
	return func(v any, err error) error {
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, v)
	}
}
