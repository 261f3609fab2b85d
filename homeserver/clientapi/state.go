package clientapi

import (
	"net/http"
	"slices"

	"hansa/homeserver/clientsync"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
)

func (a *API) stateRoutes() []route {
	const room = "/_matrix/client/v3/rooms/{roomId}"
	return []route{
		{method: "GET", path: room + "/state", access: user, point: policy.RoomRead, fn: a.roomState},
		{method: "GET", path: room + "/state/{eventType}/{stateKey}", access: user, point: policy.RoomRead, fn: a.roomStateEvent,
			aliases: []string{room + "/state/{eventType}", room + "/state/{eventType}/"}},
		{method: "GET", path: room + "/members", access: user, point: policy.RoomRead, fn: a.roomMembers},
		{method: "GET", path: room + "/joined_members", access: user, point: policy.RoomRead, fn: a.joinedMembers},
	}
}

// mayRead asks whether the caller may read a room. Who is not in it gets the answer for a room that does not exist.
func (a *API) mayRead(r *request, id matrix.RoomID) error {
	facts, audience, err := a.Rooms.PolicyFacts(r.Context(), id, r.session.UserID)
	if err != nil {
		return err
	}
	d := a.Policy.Decide(r.Context(), &policy.Input{Point: policy.RoomRead, Time: a.now(), Tenant: policy.Tenant{Name: string(r.tenant)},
		Subject: r.subject(), Room: facts, Audience: audience, Request: r.policyRequest()})
	if e := d.Error(); e != nil {
		if facts.Membership != auth.Join {
			return room.ErrUnknownRoom
		}
		return e
	}
	return nil
}

// spec: client-server-api#get_matrixclientv3roomsroomidstate
func (a *API) roomState(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	if err := a.mayRead(r, id); err != nil {
		return err
	}
	list, err := a.Sync.LoadRoomState(r.Context(), r.viewer(), id)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, array(list))
}

// array makes a JSON array of its elements.
func array(list [][]byte) []byte {
	n := 2
	for _, b := range list {
		n += len(b) + 1
	}
	out := append(make([]byte, 0, n), '[')
	for i, b := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, ']')
}

// spec: client-server-api#get_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) roomStateEvent(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	format := r.values().Get("format")
	if format != "" && format != "content" && format != "event" {
		return matrix.InvalidParam("format must be content or event.")
	}
	if err := a.mayRead(r, id); err != nil {
		return err
	}
	content, whole, err := a.Sync.LoadRoomStateEvent(r.Context(), r.viewer(), id, event.StateKey{Type: r.param("eventType"), Key: r.param("stateKey")})
	if err != nil {
		return err
	}
	if format == "event" {
		return writeRaw(w, http.StatusOK, whole)
	}
	return writeRaw(w, http.StatusOK, content)
}

// spec: client-server-api#get_matrixclientv3roomsroomidmembers
func (a *API) roomMembers(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	params := r.values()
	q := clientsync.MemberQuery{Is: params.Get("membership"), IsNot: params.Get("not_membership")}
	for _, m := range []string{q.Is, q.IsNot} {
		if m != "" && !slices.Contains([]string{auth.Join, auth.Invite, auth.Leave, auth.Ban, auth.Knock}, m) {
			return matrix.InvalidParam("There is no membership %.40q.", m)
		}
	}
	if q.At, err = optionalToken(params.Get("at")); err != nil {
		return err
	}
	if err := a.mayRead(r, id); err != nil {
		return err
	}
	list, err := a.Sync.LoadRoomMembers(r.Context(), r.viewer(), id, q)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, append(append([]byte(`{"chunk":`), array(list)...), '}'))
}

// joinedMember is one entry of /joined_members. What a member does not have is null: clients such as matrix-nio refuse the
// whole answer when the key is missing.
type joinedMember struct {
	DisplayName *string `json:"display_name"`
	AvatarURL   *string `json:"avatar_url"`
}

func stringOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// spec: client-server-api#get_matrixclientv3roomsroomidjoined_members
func (a *API) joinedMembers(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	if err := a.mayRead(r, id); err != nil {
		return err
	}
	list, err := a.Sync.LoadJoined(r.Context(), r.viewer(), id)
	if err != nil {
		return err
	}
	joined := make(map[matrix.UserID]joinedMember, len(list))
	for u, m := range list {
		joined[u] = joinedMember{stringOrNull(m.DisplayName), stringOrNull(m.AvatarURL)}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"joined": joined})
}
