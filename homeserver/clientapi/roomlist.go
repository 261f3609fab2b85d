package clientapi

import (
	"net/http"

	"hansa/homeserver/directory"
	"hansa/matrix"
	"hansa/policy"
)

func (a *API) roomListRoutes() []route {
	const list = "/_matrix/client/v3/directory/list/room/{roomId}"
	return []route{
		{method: "GET", path: list, access: user, point: policy.DirectoryRooms, fn: a.getVisibility},
		{method: "PUT", path: list, access: user, point: policy.RoomPublish, fn: a.putVisibility},
		{method: "GET", path: "/_matrix/client/v3/publicRooms", access: user, point: policy.DirectoryRooms, lists: true, fn: a.publicRooms},
		{method: "POST", path: "/_matrix/client/v3/publicRooms", access: user, point: policy.DirectoryRooms, reads: true, lists: true, fn: a.queryPublicRooms},
	}
}

// spec: client-server-api#get_matrixclientv3directorylistroomroomid
func (a *API) getVisibility(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	public, err := a.Directory.Visibility(r.Context(), r.finder(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"visibility": map[bool]string{true: "public", false: "private"}[public]})
}

// spec: client-server-api#put_matrixclientv3directorylistroomroomid
func (a *API) putVisibility(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	var body struct {
		Visibility *string `json:"visibility"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	public := body.Visibility == nil || *body.Visibility == "public"
	if !public && *body.Visibility != "private" {
		return matrix.InvalidParam("The visibility must be public or private.")
	}
	if err := a.Directory.SetVisibility(r.Context(), r.finder(), id, public); err != nil {
		return err
	}
	return empty(w)
}

// publicRooms lists published rooms.
// differs: the specification lets anybody ask; see getAlias.
//
// spec: client-server-api#get_matrixclientv3publicrooms
func (a *API) publicRooms(w http.ResponseWriter, r *request) error {
	limit, err := r.intQuery("limit", 0, 0, 1<<30)
	if err != nil {
		return err
	}
	return a.listRooms(w, r, directory.Query{Limit: limit, Since: r.values().Get("since")})
}

// spec: client-server-api#post_matrixclientv3publicrooms
func (a *API) queryPublicRooms(w http.ResponseWriter, r *request) error {
	var body struct {
		Limit  int    `json:"limit"`
		Since  string `json:"since"`
		Filter struct {
			Term  string    `json:"generic_search_term"`
			Types []*string `json:"room_types"`
		} `json:"filter"`
		Instance string `json:"third_party_instance_id"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	if body.Instance != "" {
		return matrix.InvalidParam("There is no third-party network %.100q.", body.Instance)
	}
	return a.listRooms(w, r, directory.Query{Limit: body.Limit, Since: body.Since, Term: body.Filter.Term, Types: body.Filter.Types})
}

func (a *API) listRooms(w http.ResponseWriter, r *request, q directory.Query) error {
	if name := r.values().Get("server"); name != "" {
		server, err := matrix.ParseServerName(name)
		if err != nil {
			return matrix.InvalidParam("%.100q is not a server name.", name)
		}
		q.Server = server
	}
	page, err := a.Directory.List(r.Context(), r.finder(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, page)
}
