package clientapi

import (
	"net/http"

	"hansa/matrix"
	"hansa/policy"
)

func (a *API) presenceRoutes() []route {
	const path = "/_matrix/client/v3/presence/{userId}/status"
	return []route{
		{method: "GET", path: path, access: user, point: policy.PresenceRead, fn: a.getPresence},
		{method: "PUT", path: path, access: user, point: policy.PresenceWrite, fn: a.setPresence, limit: 64 << 10},
	}
}

// spec: client-server-api#get_matrixclientv3presenceuseridstatus
func (a *API) getPresence(w http.ResponseWriter, r *request) error {
	who, err := r.userID()
	if err != nil {
		return err
	}
	content, err := a.Ephemeral.GetPresence(r.Context(), r.person(), who)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, content)
}

// spec: client-server-api#put_matrixclientv3presenceuseridstatus
func (a *API) setPresence(w http.ResponseWriter, r *request) error {
	who, err := r.self()
	if err != nil {
		return err
	}
	var body struct {
		Presence string  `json:"presence"`
		Status   *string `json:"status_msg"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Presence == "" {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The body needs a presence.")
	}
	if err := a.Ephemeral.SetPresence(r.Context(), r.person(), who, body.Presence, body.Status); err != nil {
		return err
	}
	return empty(w)
}
