package fedserver

import (
	"context"
	"net/http"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
)

// Devices answers about the devices of our users. It is declared here so that the routes can be tested by themselves.
type Devices interface {
	ServeDevices(ctx context.Context, as, origin matrix.ServerName, user matrix.UserID) (*federation.Devices, error)
	ServeQuery(ctx context.Context, as, origin matrix.ServerName, want map[matrix.UserID][]matrix.DeviceID) (*federation.KeysAnswer, error)
	ServeClaim(ctx context.Context, as, origin matrix.ServerName, want map[matrix.UserID]map[matrix.DeviceID]string) (*federation.ClaimAnswer, error)
}

// maxKeyUsers is how many users one request about keys may name.
const maxKeyUsers = 5000

func (a *API) deviceRoutes() []route {
	if a.Devices == nil {
		return nil
	}
	const user = "/_matrix/federation/v1/user/"
	return []route{
		{method: "GET", path: user + "devices/{userId}", point: policy.KeysQuery, fn: a.devices},
		{method: "POST", path: user + "keys/query", point: policy.KeysQuery, fn: a.keysQuery},
		{method: "POST", path: user + "keys/claim", point: policy.KeysClaim, fn: a.keysClaim},
	}
}

// spec: server-server-api#get_matrixfederationv1userdevicesuserid
// spec: server-server-api#device-management
func (a *API) devices(w http.ResponseWriter, q *request) error {
	user, err := q.userID()
	if err != nil {
		return err
	}
	return answer(w)(a.Devices.ServeDevices(q.Context(), q.as, q.origin, user))
}

// spec: server-server-api#post_matrixfederationv1userkeysquery
// spec: server-server-api#end-to-end-encryption
func (a *API) keysQuery(w http.ResponseWriter, q *request) error {
	var body federation.KeysQuery
	if err := q.decode(&body); err != nil {
		return err
	}
	if err := namedUsers(body.DeviceKeys); err != nil {
		return err
	}
	return answer(w)(a.Devices.ServeQuery(q.Context(), q.as, q.origin, body.DeviceKeys))
}

// spec: server-server-api#post_matrixfederationv1userkeysclaim
func (a *API) keysClaim(w http.ResponseWriter, q *request) error {
	var body federation.KeysClaim
	if err := q.decode(&body); err != nil {
		return err
	}
	if err := namedUsers(body.OneTimeKeys); err != nil {
		return err
	}
	return answer(w)(a.Devices.ServeClaim(q.Context(), q.as, q.origin, body.OneTimeKeys))
}

// namedUsers takes names that are no user IDs out of a request, as names of nobody.
func namedUsers[V any](m map[matrix.UserID]V) error {
	if len(m) > maxKeyUsers {
		return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "At most %d users may be named.", maxKeyUsers)
	}
	for id := range m {
		if _, err := matrix.ParseUserID(string(id)); err != nil {
			delete(m, id)
		}
	}
	return nil
}
