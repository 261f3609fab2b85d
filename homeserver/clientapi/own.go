package clientapi

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/matrix/filter"
	"hansa/policy"
)

// ownRoutes are devices, profiles, account data and filters: what users keep of their own.
func (a *API) ownRoutes() []route {
	const v3 = "/_matrix/client/v3"
	const data = v3 + "/user/{userId}"
	return []route{
		{method: "GET", path: v3 + "/devices", access: user, none: "the caller's own devices", fn: a.devices},
		{method: "GET", path: v3 + "/devices/{deviceId}", access: user, none: "the caller's own devices", fn: a.device},
		{method: "PUT", path: v3 + "/devices/{deviceId}", access: user, none: "the caller's own devices", fn: a.renameDevice},
		{method: "DELETE", path: v3 + "/devices/{deviceId}", access: user, none: "the caller's own devices", fn: a.deleteDevice, reads: true},
		{method: "POST", path: v3 + "/delete_devices", access: user, none: "the caller's own devices", fn: a.deleteDevices, reads: true},
		{method: "GET", path: v3 + "/profile/{userId}", access: optional, point: policy.ProfileRead, fn: a.profile},
		{method: "GET", path: v3 + "/profile/{userId}/{keyName}", access: optional, point: policy.ProfileRead, fn: a.profileField},
		{method: "PUT", path: v3 + "/profile/{userId}/{keyName}", access: user, point: policy.ProfileWrite, fn: a.setProfile, limit: 256 << 10},
		{method: "DELETE", path: v3 + "/profile/{userId}/{keyName}", access: user, point: policy.ProfileWrite, fn: a.deleteProfile},
		{method: "GET", path: data + "/account_data/{type}", access: user, none: "the caller's own data", fn: a.accountData},
		{method: "PUT", path: data + "/account_data/{type}", access: user, none: "the caller's own data", fn: a.setAccountData, reads: true},
		{method: "GET", path: data + "/rooms/{roomId}/account_data/{type}", access: user, none: "the caller's own data", fn: a.accountData},
		{method: "PUT", path: data + "/rooms/{roomId}/account_data/{type}", access: user, none: "the caller's own data", fn: a.setAccountData, reads: true},
		{method: "POST", path: data + "/filter", access: user, none: "the caller's own filters", fn: a.putFilter, reads: true, limit: 128 << 10},
		{method: "GET", path: data + "/filter/{filterId}", access: user, none: "the caller's own filters", fn: a.getFilter},
	}
}

func (a *API) devices(w http.ResponseWriter, r *request) error {
	list, err := a.Accounts.Devices(r.Context(), r.caller())
	if err != nil {
		return err
	}
	if list == nil {
		list = []account.DeviceInfo{}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"devices": list})
}

func (a *API) device(w http.ResponseWriter, r *request) error {
	d, err := a.Accounts.Device(r.Context(), r.caller(), matrix.DeviceID(r.param("deviceId")))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, d)
}

func (a *API) renameDevice(w http.ResponseWriter, r *request) error {
	var body struct {
		DisplayName *string `json:"display_name"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if r.session.Bridge != nil {
		return a.putBridgedDevice(w, r, body.DisplayName)
	}
	if err := a.Accounts.RenameDevice(r.Context(), r.caller(), matrix.DeviceID(r.param("deviceId")), body.DisplayName); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) deleteDevice(w http.ResponseWriter, r *request) error {
	if err := a.Accounts.DeleteDevices(r.Context(), r.caller(), r.proof(), []matrix.DeviceID{matrix.DeviceID(r.param("deviceId"))}); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) deleteDevices(w http.ResponseWriter, r *request) error {
	var body struct {
		Devices []matrix.DeviceID `json:"devices"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if err := a.Accounts.DeleteDevices(r.Context(), r.caller(), r.proof(), body.Devices); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) readProfile(w http.ResponseWriter, r *request, field string) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	p, err := a.Accounts.ReadProfile(r.Context(), r.caller(), id, field)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

func (a *API) profile(w http.ResponseWriter, r *request) error { return a.readProfile(w, r, "") }

func (a *API) profileField(w http.ResponseWriter, r *request) error {
	return a.readProfile(w, r, r.param("keyName"))
}

func (a *API) setProfile(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	var body map[string]jsontext.Value
	if err := r.decode(&body); err != nil {
		return err
	}
	value, ok := body[r.param("keyName")]
	if !ok {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The body must hold %.100q.", r.param("keyName"))
	}
	if err := a.Accounts.SetProfile(r.Context(), r.caller(), id, r.param("keyName"), value); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) deleteProfile(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	if err := a.Accounts.DeleteProfile(r.Context(), r.caller(), id, r.param("keyName")); err != nil {
		return err
	}
	return empty(w)
}

// dataRoom is the room of room account data, empty for global data.
func (r *request) dataRoom() (matrix.RoomID, error) {
	if _, ok := r.params["roomId"]; !ok {
		return "", nil
	}
	return r.roomID()
}

func (a *API) accountData(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	room, err := r.dataRoom()
	if err != nil {
		return err
	}
	content, err := a.Accounts.GetAccountData(r.Context(), r.caller(), id, room, r.param("type"))
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, content)
}

func (a *API) setAccountData(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	room, err := r.dataRoom()
	if err != nil {
		return err
	}
	content, err := r.object()
	if err != nil {
		return err
	}
	if err := a.Accounts.PutAccountData(r.Context(), r.caller(), id, room, r.param("type"), content); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) putFilter(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	f, err := r.object()
	if err != nil {
		return err
	}
	if _, err := filter.Parse(f); err != nil { // what /sync would refuse is not stored
		return err
	}
	filterID, err := a.Accounts.PutFilter(r.Context(), r.caller(), id, f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"filter_id": filterID})
}

func (a *API) getFilter(w http.ResponseWriter, r *request) error {
	id, err := r.userID()
	if err != nil {
		return err
	}
	f, err := a.Accounts.GetFilter(r.Context(), r.caller(), id, r.param("filterId"))
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, f)
}
