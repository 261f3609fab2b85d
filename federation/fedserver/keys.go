package fedserver

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
)

func (a *API) keyRoutes() []route {
	const publicKeys = "keys are public, and only partners are asked for theirs"
	return []route{
		{method: "GET", path: "/_matrix/key/v2/server", access: open, none: "keys are public", fn: a.ownKeys},
		{method: "GET", path: "/_matrix/key/v2/query/{serverName}", access: open, none: publicKeys, fn: a.queryKeys},
		{method: "POST", path: "/_matrix/key/v2/query", access: open, none: publicKeys, fn: a.queryManyKeys, limit: 256 << 10},
	}
}

// spec: server-server-api#get_matrixkeyv2server
// spec: server-server-api#publishing-keys
func (a *API) ownKeys(w http.ResponseWriter, q *request) error {
	keys, err := a.Keys.OwnKeys(q.tenant.Name)
	if err != nil {
		return err
	}
	return writeRaw(w, http.StatusOK, keys)
}

// spec: server-server-api#get_matrixkeyv2queryservername
func (a *API) queryKeys(w http.ResponseWriter, q *request) error {
	server, err := matrix.ParseServerName(q.PathValue("serverName"))
	if err != nil {
		return matrix.InvalidParam("%.100q is not a server name.", q.PathValue("serverName"))
	}
	least, err := q.number("minimum_valid_until_ts", 0)
	if err != nil {
		return err
	}
	return a.notary(w, q, map[matrix.ServerName]map[string]federation.KeyCriteria{server: {"": {MinimumValidUntilTS: least}}})
}

// spec: server-server-api#post_matrixkeyv2query
// spec: server-server-api#querying-keys-through-another-server
func (a *API) queryManyKeys(w http.ResponseWriter, q *request) error {
	var body federation.KeyQuery
	if err := q.decode(&body); err != nil {
		return err
	}
	return a.notary(w, q, body.ServerKeys)
}

func (a *API) notary(w http.ResponseWriter, q *request, want map[matrix.ServerName]map[string]federation.KeyCriteria) error {
	keys, err := a.Keys.Query(q.Context(), q.tenant.Name, want)
	if err != nil {
		return err
	}
	if keys == nil {
		keys = []jsontext.Value{}
	}
	return writeJSON(w, http.StatusOK, federation.KeyQueryAnswer{ServerKeys: keys})
}
