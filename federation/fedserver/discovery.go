package fedserver

import (
	"net/http"

	"hansa/federation"
	"hansa/matrix"
)

func (a *API) discoveryRoutes() []route {
	return []route{
		{method: "GET", path: "/.well-known/matrix/server", access: open, none: "says where the server is", fn: a.wellKnown},
		{method: "GET", path: "/_matrix/federation/v1/version", access: open, none: "names the software", fn: a.version},
	}
}

// spec: server-server-api#getwell-knownmatrixserver
// spec: server-server-api#resolving-server-names
func (a *API) wellKnown(w http.ResponseWriter, q *request) error {
	if q.tenant.Delegate == "" {
		return matrix.NotFound("This server delegates nothing.")
	}
	w.Header().Set("Cache-Control", "public, max-age=3600")
	return writeJSON(w, http.StatusOK, map[string]string{"m.server": q.tenant.Delegate})
}

// spec: server-server-api#server-implementation
func (a *API) version(w http.ResponseWriter, _ *request) error {
	var v federation.Version
	v.Server.Name, v.Server.Version = "Hansa", a.Version
	return writeJSON(w, http.StatusOK, v)
}
