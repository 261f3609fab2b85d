package clientapi

import (
	"net/http"
	"strconv"

	"hansa/homeserver/directory"
	"hansa/matrix"
	"hansa/policy"
)

// spaceRoutes are those that tell of rooms that the caller need not be in.
func (a *API) spaceRoutes() []route {
	return []route{
		{method: "GET", path: "/_matrix/client/v1/rooms/{roomId}/hierarchy", access: user, point: policy.DirectoryRooms, lists: true, fn: a.hierarchy},
		{method: "GET", path: "/_matrix/client/v1/room_summary/{roomIdOrAlias}", access: user, point: policy.DirectoryRooms, fn: a.roomSummary},
	}
}

// spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
func (a *API) hierarchy(w http.ResponseWriter, r *request) error {
	id, err := r.roomID()
	if err != nil {
		return err
	}
	q := directory.TreeQuery{MaxDepth: -1, From: r.values().Get("from")}
	if r.values().Get("max_depth") != "" {
		if q.MaxDepth, err = r.intQuery("max_depth", 0, 0, 1<<30); err != nil {
			return err
		}
	}
	if text := r.values().Get("limit"); text != "" {
		if q.Limit, err = r.intQuery("limit", 0, 0, 1<<30); err != nil {
			return err
		}
		if q.Limit == 0 {
			return matrix.InvalidParam("limit must be a number greater than zero.")
		}
	}
	if text := r.values().Get("suggested_only"); text != "" {
		if q.SuggestedOnly, err = strconv.ParseBool(text); err != nil {
			return matrix.InvalidParam("suggested_only must be true or false.")
		}
	}
	tree, err := a.Directory.Hierarchy(r.Context(), r.finder(), id, q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tree)
}

// roomSummary tells about one room.
// differs: the specification lets a server answer anybody; see getAlias.
//
// spec: client-server-api#get_matrixclientv1room_summaryroomidoralias
func (a *API) roomSummary(w http.ResponseWriter, r *request) error {
	p, err := a.roomOrAlias(r)
	if err != nil {
		return err
	}
	sum, err := a.Directory.Summary(r.Context(), r.finder(), p.id, p.via, p.residents)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, sum)
}
