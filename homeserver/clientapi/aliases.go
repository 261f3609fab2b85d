package clientapi

import (
	"net/http"

	"hansa/homeserver/directory"
	"hansa/matrix"
	"hansa/policy"
)

func (a *API) aliasRoutes() []route {
	const alias = "/_matrix/client/v3/directory/room/{roomAlias}"
	return []route{
		{method: "PUT", path: alias, access: user, point: policy.RoomAlias, fn: a.putAlias},
		{method: "GET", path: alias, access: user, point: policy.DirectoryRooms, fn: a.getAlias},
		{method: "DELETE", path: alias, access: user, point: policy.RoomAlias, fn: a.deleteAlias},
		{method: "GET", path: "/_matrix/client/v3/rooms/{roomId}/aliases", access: user, point: policy.RoomRead, fn: a.roomAliases},
	}
}

// finder is the caller to package directory.
func (r *request) finder() directory.Caller {
	return directory.Caller{UserID: r.session.UserID, Subject: r.subject(), Request: r.policyRequest()}
}

func (r *request) alias() (matrix.RoomAlias, error) {
	alias, err := matrix.ParseRoomAlias(r.param("roomAlias"))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not a room alias.", r.param("roomAlias"))
	}
	return alias, nil
}

// spec: client-server-api#put_matrixclientv3directoryroomroomalias
func (a *API) putAlias(w http.ResponseWriter, r *request) error {
	alias, err := r.alias()
	if err != nil {
		return err
	}
	var body struct {
		RoomID *string `json:"room_id"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.RoomID == nil {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member room_id is missing.")
	}
	id, err := matrix.ParseRoomID(*body.RoomID)
	if err != nil {
		return matrix.InvalidParam("%.100q is not a room ID.", *body.RoomID)
	}
	if err := a.checkReserved(r, alias); err != nil {
		return err
	}
	if err := a.Directory.PutAlias(r.Context(), r.finder(), alias, id); err != nil {
		return err
	}
	return empty(w)
}

// getAlias resolves an alias.
// differs: the specification lets anybody ask; here it takes a token, because without a user there is nobody whom policy could
// judge.
//
// spec: client-server-api#get_matrixclientv3directoryroomroomalias
func (a *API) getAlias(w http.ResponseWriter, r *request) error {
	alias, err := r.alias()
	if err != nil {
		return err
	}
	id, servers, err := a.Directory.Resolve(r.Context(), r.finder(), alias)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"room_id": id, "servers": servers})
}

// spec: client-server-api#delete_matrixclientv3directoryroomroomalias
func (a *API) deleteAlias(w http.ResponseWriter, r *request) error {
	alias, err := r.alias()
	if err != nil {
		return err
	}
	if err := a.Directory.DeleteAlias(r.Context(), r.finder(), alias); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#get_matrixclientv3roomsroomidaliases
func (a *API) roomAliases(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	if err := a.mayRead(r, id); err != nil {
		return err
	}
	if err := a.Sync.CheckInside(r.Context(), r.viewer(), id); err != nil {
		return err
	}
	list, err := a.Directory.Aliases(r.Context(), r.finder(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"aliases": list})
}
