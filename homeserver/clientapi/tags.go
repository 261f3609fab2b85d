package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

func (a *API) tagRoutes() []route {
	const path, none = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags", "a user's own notes, seen by nobody else"
	return []route{
		{method: "GET", path: path, access: user, none: none, fn: a.getTags},
		{method: "PUT", path: path + "/{tag}", access: user, none: none, fn: a.putTag, limit: 64 << 10, reads: true},
		{method: "DELETE", path: path + "/{tag}", access: user, none: none, fn: a.deleteTag, limit: 64 << 10, reads: true},
	}
}

func (q *request) ownRoom() (matrix.UserID, matrix.RoomID, error) {
	who, err := q.self()
	if err != nil {
		return "", "", err
	}
	room, err := q.roomID()
	return who, room, err
}

// spec: client-server-api#get_matrixclientv3useruseridroomsroomidtags
func (a *API) getTags(w http.ResponseWriter, r *request) error {
	who, room, err := r.ownRoom()
	if err != nil {
		return err
	}
	tags, err := a.Accounts.Tags(r.Context(), r.caller(), who, room)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]map[string]jsontext.Value{"tags": tags})
}

// spec: client-server-api#put_matrixclientv3useruseridroomsroomidtagstag
func (a *API) putTag(w http.ResponseWriter, r *request) error {
	who, room, err := r.ownRoom()
	if err != nil {
		return err
	}
	content, err := r.object()
	if err != nil {
		return err
	}
	if err := a.Accounts.PutTag(r.Context(), r.caller(), who, room, r.param("tag"), content); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#delete_matrixclientv3useruseridroomsroomidtagstag
func (a *API) deleteTag(w http.ResponseWriter, r *request) error {
	who, room, err := r.ownRoom()
	if err != nil {
		return err
	}
	if err := a.Accounts.DeleteTag(r.Context(), r.caller(), who, room, r.param("tag")); err != nil {
		return err
	}
	return empty(w)
}
