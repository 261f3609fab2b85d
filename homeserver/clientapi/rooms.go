package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/membership"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

func (a *API) roomRoutes() []route {
	return []route{
		{method: "POST", path: "/_matrix/client/v3/createRoom", access: user, point: policy.RoomCreate, fn: a.createRoom},
		{method: "POST", path: "/_matrix/client/v3/rooms/{roomId}/upgrade", access: user, point: policy.RoomUpgrade, fn: a.upgradeRoom},
		{method: "GET", path: "/_matrix/client/v3/joined_rooms", access: user, none: "the caller's own rooms", fn: a.joinedRooms},
	}
}

// member is the caller to package membership.
func (r *request) member() membership.Caller {
	return membership.Caller{UserID: r.session.UserID, Subject: r.subject(), Request: r.policyRequest()}
}

// spec: client-server-api#post_matrixclientv3createroom
func (a *API) createRoom(w http.ResponseWriter, r *request) error {
	var body membership.CreateRequest
	if err := r.decode(&body); err != nil {
		return err
	}
	if name := body.RoomAliasName; name != nil { // one that is no alias is refused below
		if err := a.checkReserved(r, matrix.RoomAlias("#"+*name+":"+string(r.tenant))); err != nil {
			return err
		}
	}
	id, err := a.Members.Create(r.Context(), r.member(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"room_id": id})
}

// spec: client-server-api#post_matrixclientv3roomsroomidupgrade
func (a *API) upgradeRoom(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	var body struct {
		NewVersion jsontext.Value `json:"new_version"`
		Additional []string       `json:"additional_creators"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	next, err := a.Members.Upgrade(r.Context(), r.member(), id, body.NewVersion, body.Additional)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"replacement_room": next})
}

// spec: client-server-api#get_matrixclientv3joined_rooms
func (a *API) joinedRooms(w http.ResponseWriter, r *request) error {
	joined := []matrix.RoomID{}
	err := a.DB.Read(r.Context(), func(tx *storage.Tx) error {
		list, err := tx.LoadUserRooms(r.session.UserID)
		joined = joined[:0]
		for _, m := range list {
			if m.Membership == auth.Join {
				joined = append(joined, m.RoomID)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"joined_rooms": joined})
}
