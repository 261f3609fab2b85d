package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/e2ee"
	"hansa/matrix"
	"hansa/storage"
)

// backupBodyLimit is the largest body of an upload of keys to a backup.
const backupBodyLimit = 16 << 20

// roomKeyRoutes are the server-side key backup. Suspended users may go on filling theirs.
func (a *API) roomKeyRoutes() []route {
	const own = "the caller's own backup"
	var out []route
	add := func(method, path string, fn handler) {
		const v3, unstable = "/_matrix/client/v3/room_keys", "/_matrix/client/unstable/room_keys"
		out = append(out, route{method: method, path: v3 + path, aliases: []string{unstable + path}, access: user, none: own, fn: fn,
			reads: true, limit: backupBodyLimit})
	}
	add("POST", "/version", a.createBackup)
	add("GET", "/version", a.findBackup)
	add("GET", "/version/{version}", a.findBackup)
	add("PUT", "/version/{version}", a.updateBackup)
	add("DELETE", "/version/{version}", a.deleteBackup)
	for _, path := range []string{"/keys", "/keys/{roomId}", "/keys/{roomId}/{sessionId}"} {
		add("PUT", path, a.putBackupKeys)
		add("GET", path, a.backupKeys)
		add("DELETE", path, a.deleteBackupKeys)
	}
	return out
}

// backupBody is the description of a backup as clients send it.
type backupBody struct {
	Algorithm string         `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	Version   string         `json:"version"`
}

// spec: client-server-api#post_matrixclientv3room_keysversion
func (a *API) createBackup(w http.ResponseWriter, r *request) error {
	var body backupBody
	if err := r.decode(&body); err != nil {
		return err
	}
	version, err := a.E2EE.CreateBackup(r.Context(), r.session.UserID, body.Algorithm, body.AuthData)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"version": version})
}

// spec: client-server-api#get_matrixclientv3room_keysversion
func (a *API) findBackup(w http.ResponseWriter, r *request) error {
	b, err := a.E2EE.FindBackup(r.Context(), r.session.UserID, r.param("version"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, b)
}

// spec: client-server-api#put_matrixclientv3room_keysversionversion
func (a *API) updateBackup(w http.ResponseWriter, r *request) error {
	var body backupBody
	if err := r.decode(&body); err != nil {
		return err
	}
	if err := a.E2EE.UpdateBackup(r.Context(), r.session.UserID, r.param("version"), body.Version, body.Algorithm, body.AuthData); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#delete_matrixclientv3room_keysversionversion
func (a *API) deleteBackup(w http.ResponseWriter, r *request) error {
	if err := a.E2EE.DeleteBackup(r.Context(), r.session.UserID, r.param("version")); err != nil {
		return err
	}
	return empty(w)
}

// backupPart reads which version and which part of it a request is about.
func (q *request) backupPart() (version string, scope storage.BackupScope, err error) {
	if version = q.URL.Query().Get("version"); version == "" {
		return "", scope, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The query must hold version.")
	}
	scope = storage.BackupScope{RoomID: q.param("roomId"), SessionID: q.param("sessionId")}
	for _, name := range []string{"roomId", "sessionId"} {
		if v, ok := q.params[name]; ok && v == "" {
			return "", scope, matrix.InvalidParam("%s is empty.", name)
		}
	}
	return version, scope, nil
}

// spec: client-server-api#put_matrixclientv3room_keyskeys
func (a *API) putBackupKeys(w http.ResponseWriter, r *request) error {
	version, scope, err := r.backupPart()
	if err != nil {
		return err
	}
	rooms, err := r.backupRooms(scope)
	if err != nil {
		return err
	}
	state, err := a.E2EE.PutSessions(r.Context(), r.session.UserID, version, rooms)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, state)
}

// backupRooms reads the keys in a body: those of all rooms, of one, or of one session.
func (q *request) backupRooms(scope storage.BackupScope) (e2ee.Rooms, error) {
	switch {
	case scope.SessionID != "":
		var key e2ee.BackupKey
		err := q.decode(&key)
		return e2ee.Rooms{scope.RoomID: {Sessions: map[string]e2ee.BackupKey{scope.SessionID: key}}}, err
	case scope.RoomID != "":
		var room e2ee.RoomBackup
		err := q.decode(&room)
		return e2ee.Rooms{scope.RoomID: room}, err
	}
	var body struct {
		Rooms e2ee.Rooms `json:"rooms"`
	}
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	if body.Rooms == nil {
		return nil, missing("rooms")
	}
	return body.Rooms, nil
}

// spec: client-server-api#get_matrixclientv3room_keyskeys
func (a *API) backupKeys(w http.ResponseWriter, r *request) error {
	version, scope, err := r.backupPart()
	if err != nil {
		return err
	}
	keys, err := a.E2EE.LoadSessions(r.Context(), r.session.UserID, version, scope)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, keys)
}

// spec: client-server-api#delete_matrixclientv3room_keyskeys
func (a *API) deleteBackupKeys(w http.ResponseWriter, r *request) error {
	version, scope, err := r.backupPart()
	if err != nil {
		return err
	}
	state, err := a.E2EE.DeleteSessions(r.Context(), r.session.UserID, version, scope)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, state)
}
