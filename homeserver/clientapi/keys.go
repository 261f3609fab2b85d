package clientapi

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/clientsync"
	"hansa/homeserver/e2ee"
	"hansa/matrix"
	"hansa/policy"
)

// keyRoutes are the keys of devices and users. Suspended users may call all of them: they go on reading and verifying.
func (a *API) keyRoutes() []route {
	const keys = "/_matrix/client/v3/keys"
	const unstable = "/_matrix/client/unstable/keys"
	return []route{
		{method: "POST", path: keys + "/upload", access: user, none: "the caller's own device", fn: a.uploadKeys, reads: true},
		{method: "POST", path: keys + "/query", access: user, point: policy.KeysQuery, fn: a.queryKeys, reads: true},
		{method: "POST", path: keys + "/claim", access: user, point: policy.KeysClaim, fn: a.claimKeys, reads: true},
		{method: "GET", path: keys + "/changes", access: user, point: policy.Contact, fn: a.keyChanges},
		{method: "POST", path: keys + "/device_signing/upload", access: user, none: "the caller's own keys", fn: a.uploadCrossSigning,
			aliases: []string{unstable + "/device_signing/upload"}, reads: true},
		{method: "POST", path: keys + "/signatures/upload", access: user, point: policy.KeysSign, fn: a.uploadSignatures,
			aliases: []string{unstable + "/signatures/upload"}, reads: true, limit: 4 << 20},
	}
}

// keyOwner is the caller to the service that keeps keys.
func (q *request) keyOwner() e2ee.Caller {
	return e2ee.Caller{UserID: q.session.UserID, DeviceID: q.session.DeviceID, Subject: q.subject(), Request: q.policyRequest()}
}

// missing is the answer to a body that lacks a member.
func missing(name string) error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The body must hold %s.", name)
}

// spec: client-server-api#post_matrixclientv3keysupload
func (a *API) uploadKeys(w http.ResponseWriter, r *request) error {
	var body e2ee.Upload
	if err := r.decode(&body); err != nil {
		return err
	}
	counts, err := a.E2EE.UploadKeys(r.Context(), r.keyOwner(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"one_time_key_counts": counts})
}

// spec: client-server-api#post_matrixclientv3keysquery
func (a *API) queryKeys(w http.ResponseWriter, r *request) error {
	var body struct {
		DeviceKeys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.DeviceKeys == nil {
		return missing("device_keys")
	}
	keys, err := a.E2EE.QueryKeys(r.Context(), r.keyOwner(), body.DeviceKeys)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, keys)
}

// spec: client-server-api#post_matrixclientv3keysclaim
func (a *API) claimKeys(w http.ResponseWriter, r *request) error {
	var body struct {
		OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]string `json:"one_time_keys"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.OneTimeKeys == nil {
		return missing("one_time_keys")
	}
	keys, err := a.E2EE.ClaimKeys(r.Context(), r.keyOwner(), body.OneTimeKeys)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, keys)
}

// spec: client-server-api#get_matrixclientv3keyschanges
func (a *API) keyChanges(w http.ResponseWriter, r *request) error {
	q := r.values()
	if q.Get("from") == "" {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The query must hold from.")
	}
	from, err := clientsync.ParseToken(q.Get("from"))
	if err != nil {
		return err
	}
	if q.Get("to") != "" { // a hint to how new the answer must be, which is as new as can be
		if _, err := clientsync.ParseToken(q.Get("to")); err != nil {
			return err
		}
	}
	lists, err := a.E2EE.KeyChanges(r.Context(), r.session.UserID, from.Pos)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, lists)
}

// spec: client-server-api#post_matrixclientv3keysdevice_signingupload
func (a *API) uploadCrossSigning(w http.ResponseWriter, r *request) error {
	var body e2ee.CrossSigning
	if err := r.decode(&body); err != nil {
		return err
	}
	by := r.keyOwner()
	confirmed := r.session.Kind == "ghost" || r.session.Kind == "bridge" // application services have nobody to ask
	needed, err := a.E2EE.NeedsAuth(r.Context(), by, body)
	if err != nil {
		return err
	}
	if needed && !confirmed {
		if err := a.Accounts.Confirm(r.Context(), r.caller(), r.proof()); err != nil {
			return err
		}
		confirmed = true
	}
	err = a.E2EE.UploadCrossSigning(r.Context(), by, body, confirmed)
	if errors.Is(err, e2ee.ErrAuthNeeded) { // another device was faster: now it has to be confirmed
		if err = a.Accounts.Confirm(r.Context(), r.caller(), r.proof()); err == nil {
			err = a.E2EE.UploadCrossSigning(r.Context(), by, body, true)
		}
	}
	if err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv3keyssignaturesupload
func (a *API) uploadSignatures(w http.ResponseWriter, r *request) error {
	var body map[matrix.UserID]map[string]jsontext.Value
	if err := r.decode(&body); err != nil {
		return err
	}
	failures, err := a.E2EE.UploadSignatures(r.Context(), r.keyOwner(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"failures": failures})
}
