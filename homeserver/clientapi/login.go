package clientapi

import (
	"net/http"
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/account"
	"hansa/policy"
)

func (a *API) loginRoutes() []route {
	const v3 = "/_matrix/client/v3"
	return []route{
		{method: "GET", path: v3 + "/login", none: "names the ways to log in, the same for everybody", fn: a.loginFlows},
		{method: "POST", path: v3 + "/login", point: policy.AccountLogin, fn: a.login, limit: 64 << 10},
		{method: "POST", path: v3 + "/refresh", point: policy.AccountLogin, fn: a.refresh, limit: 64 << 10},
		{method: "POST", path: v3 + "/logout", access: user, none: "ends the caller's own session", fn: a.logout, reads: true, locked: true},
		{method: "POST", path: v3 + "/logout/all", access: user, none: "ends the caller's own sessions", fn: a.logoutAll, reads: true, locked: true},
		{method: "POST", path: v3 + "/register", point: policy.AccountRegister, fn: a.register, limit: 64 << 10},
		{method: "GET", path: v3 + "/register/available", none: "says whether a name is free, to those who may register it", fn: a.registerAvailable},
		{method: "GET", path: "/_matrix/client/v1/register/m.login.registration_token/validity", none: "says whether a token of an administrator is good", fn: a.tokenValidity},
		{method: "GET", path: "/_synapse/admin/v1/register", none: "a number that is good for nothing without the secret", fn: a.secretNonce},
		{method: "POST", path: "/_synapse/admin/v1/register", point: policy.AccountRegister, fn: a.secretRegister, limit: 64 << 10},
		{method: "GET", path: v3 + "/account/whoami", access: user, none: "tells callers who they are", fn: a.whoami},
		{method: "POST", path: v3 + "/account/password", access: user, point: policy.AccountManage, fn: a.changePassword, limit: 64 << 10, reads: true},
		{method: "POST", path: v3 + "/account/deactivate", access: user, point: policy.AccountManage, fn: a.deactivate, limit: 64 << 10, reads: true},
		{method: "GET", path: v3 + "/account/3pid", access: user, none: "no addresses are kept", fn: a.noThreePIDs},
	}
}

var versionRE = regexp.MustCompile(`^/_matrix/client/[^/]+`)

// proof is the request as user-interactive authentication confirms it.
func (r *request) proof() account.Proof {
	return account.Proof{Method: r.Method, URI: versionRE.ReplaceAllString(r.URL.Path, ""), Body: jsontext.Value(r.body)}
}

// spec: client-server-api#get_matrixclientv3login
func (a *API) loginFlows(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"flows": a.Accounts.LoginFlows()})
}

// spec: client-server-api#post_matrixclientv3login
func (a *API) login(w http.ResponseWriter, r *request) error {
	var body account.LoginRequest
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Type == account.TypeBridge {
		return a.loginBridged(w, r, body)
	}
	answer, err := a.Accounts.Login(r.Context(), r.tenant, r.client(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

// spec: client-server-api#refreshing-access-tokens
func (a *API) refresh(w http.ResponseWriter, r *request) error {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	answer, err := a.Accounts.Refresh(r.Context(), r.client(), body.RefreshToken)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *API) logout(w http.ResponseWriter, r *request) error {
	if err := a.Accounts.Logout(r.Context(), r.caller()); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) logoutAll(w http.ResponseWriter, r *request) error {
	if err := a.Accounts.LogoutAll(r.Context(), r.caller()); err != nil {
		return err
	}
	return empty(w)
}

// spec: client-server-api#post_matrixclientv3register
func (a *API) register(w http.ResponseWriter, r *request) error {
	var body account.RegisterRequest
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Type == account.TypeBridge {
		return a.registerBridged(w, r, body)
	}
	answer, err := a.Accounts.Register(r.Context(), r.tenant, r.client(), r.values().Get("kind"), body, r.proof())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *API) registerAvailable(w http.ResponseWriter, r *request) error {
	if err := a.Accounts.Available(r.Context(), r.tenant, r.client(), r.values().Get("username")); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"available": true})
}

func (a *API) tokenValidity(w http.ResponseWriter, r *request) error {
	ok, err := a.Accounts.IsRegistrationTokenValid(r.Context(), r.tenant, r.client(), r.values().Get("token"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"valid": ok})
}

func (a *API) secretNonce(w http.ResponseWriter, r *request) error {
	nonce, err := a.Accounts.Nonce(r.tenant, r.client())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"nonce": nonce})
}

func (a *API) secretRegister(w http.ResponseWriter, r *request) error {
	var body account.SecretRequest
	if err := r.decode(&body); err != nil {
		return err
	}
	answer, err := a.Accounts.RegisterBySecret(r.Context(), r.tenant, r.client(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

// spec: client-server-api#get_matrixclientv3accountwhoami
func (a *API) whoami(w http.ResponseWriter, r *request) error {
	answer := map[string]any{"user_id": r.session.UserID, "is_guest": false}
	if r.session.DeviceID != "" {
		answer["device_id"] = r.session.DeviceID
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *API) changePassword(w http.ResponseWriter, r *request) error {
	body := struct {
		NewPassword   string `json:"new_password"`
		LogoutDevices *bool  `json:"logout_devices"`
	}{}
	if err := r.decode(&body); err != nil {
		return err
	}
	logout := body.LogoutDevices == nil || *body.LogoutDevices
	if err := a.Accounts.ChangePassword(r.Context(), r.caller(), r.proof(), body.NewPassword, logout); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) deactivate(w http.ResponseWriter, r *request) error {
	var body struct {
		Erase bool `json:"erase"`
	}
	if err := r.decodeOptional(&body); err != nil {
		return err
	}
	if err := a.Accounts.Deactivate(r.Context(), r.caller(), r.proof(), body.Erase); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"id_server_unbind_result": "success"})
}

func (a *API) noThreePIDs(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"threepids": []string{}})
}
