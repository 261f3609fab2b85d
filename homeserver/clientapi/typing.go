package clientapi

import (
	"net/http"
	"time"

	"hansa/homeserver/ephemeral"
	"hansa/matrix"
	"hansa/policy"
)

func (a *API) typingRoutes() []route {
	return []route{
		{method: "PUT", path: "/_matrix/client/v3/rooms/{roomId}/typing/{userId}", access: user, point: policy.TypingSend, fn: a.setTyping, limit: 64 << 10},
	}
}

// person is the caller for the services of what users show each other in passing.
func (q *request) person() ephemeral.Caller {
	return ephemeral.Caller{User: q.session.UserID, Device: q.session.DeviceID, Party: q.subject(), Request: q.policyRequest()}
}

// spec: client-server-api#put_matrixclientv3roomsroomidtypinguserid
func (a *API) setTyping(w http.ResponseWriter, r *request) error {
	who, err := r.self()
	if err != nil {
		return err
	}
	room, err := r.roomID()
	if err != nil {
		return err
	}
	var body struct {
		Typing  *bool `json:"typing"`
		Timeout int64 `json:"timeout"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Typing == nil {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The body needs a boolean typing.")
	}
	const day = int64(24 * time.Hour / time.Millisecond)
	timeout := time.Duration(min(body.Timeout, day)) * time.Millisecond
	if body.Timeout < 0 {
		timeout = -1
	}
	if err := a.Ephemeral.SetTyping(r.Context(), r.person(), room, who, *body.Typing, timeout); err != nil {
		return err
	}
	return empty(w)
}
