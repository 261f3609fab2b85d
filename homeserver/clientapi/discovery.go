package clientapi

import (
	"net/http"

	"hansa/matrix"
)

func (a *API) discoveryRoutes() []route {
	return []route{
		{method: "GET", path: "/.well-known/matrix/client", none: "says where the server is", fn: a.wellKnownClient},
		{method: "GET", path: "/_matrix/client/versions", none: "says what the server speaks", fn: a.versions},
		{method: "GET", path: "/_matrix/client/v3/capabilities", access: user, none: "says what the server can do", fn: a.capabilities},
		{method: "GET", path: "/_matrix/federation/v1/version", none: "names the software", fn: a.software},
	}
}

// spec: client-server-api#getwell-knownmatrixclient
func (a *API) wellKnownClient(w http.ResponseWriter, r *request) error {
	t := a.tenant(r.tenant)
	if t.PublicURL == "" {
		return matrix.NotFound("This server has no public address.")
	}
	return writeJSON(w, http.StatusOK, map[string]any{"m.homeserver": map[string]string{"base_url": t.PublicURL}})
}

// spec: client-server-api#get_matrixclientversions
func (a *API) versions(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]any{
		"versions": []string{"r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12"},
		"unstable_features": map[string]bool{
			"org.matrix.e2e_cross_signing":            true,
			"org.matrix.msc2285.stable":               true,
			"org.matrix.msc3771":                      true,
			"org.matrix.msc3773":                      true,
			"org.matrix.msc3916.stable":               true,
			"org.matrix.msc4222":                      true,
			"org.matrix.msc2432":                      true,
			"uk.tcpip.msc4133":                        true,
			"uk.tcpip.msc4133.stable":                 true,
			"org.matrix.msc3827.stable":               true,
			"org.matrix.msc3952_intentional_mentions": true,
		},
	})
}

// spec: client-server-api#capabilities-negotiation
func (a *API) capabilities(w http.ResponseWriter, _ *request) error {
	available := map[string]string{}
	for _, v := range matrix.RoomVersions() {
		available[v] = "stable"
	}
	return writeJSON(w, http.StatusOK, map[string]any{"capabilities": map[string]any{
		"m.change_password": map[string]any{"enabled": true},
		"m.room_versions":   map[string]any{"default": matrix.DefaultRoomVersion, "available": available},
		"m.profile_fields":  map[string]any{"enabled": true},
		"m.set_displayname": map[string]any{"enabled": true},
		"m.set_avatar_url":  map[string]any{"enabled": true},
		"m.3pid_changes":    map[string]any{"enabled": false},
		"m.get_login_token": map[string]any{"enabled": false},
	}})
}

func (a *API) software(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"server": map[string]string{"name": "Hansa", "version": a.Version}})
}
