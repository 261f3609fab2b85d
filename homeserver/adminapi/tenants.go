package adminapi

import (
	_ "embed"
	"net/http"

	"hansa/matrix"
	"hansa/storage"
)

//go:embed openapi.yaml
var openAPI []byte

func (a *API) openAPI(w http.ResponseWriter, _ *request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI) // if the client went away there is nobody to tell
	return nil
}

// server tells what runs here. A user is told of the own tenant only.
func (a *API) server(w http.ResponseWriter, q *request) error {
	out := ServerInfo{Version: a.Version}
	tenants, err := a.tenantsOf(q)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		out.Tenants = append(out.Tenants, string(t))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) listTenants(w http.ResponseWriter, q *request) error {
	tenants, err := a.tenantsOf(q)
	if err != nil {
		return err
	}
	out := TenantList{Tenants: []TenantInfo{}}
	for _, name := range tenants {
		t, err := a.describe(q, name)
		if err != nil {
			return err
		}
		out.Tenants = append(out.Tenants, *t)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *API) showTenant(w http.ResponseWriter, q *request) error {
	t, err := a.describe(q, matrix.ServerName(q.PathValue("tenant")))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, t)
}

func (a *API) describe(q *request, name matrix.ServerName) (*TenantInfo, error) {
	for _, t := range a.Tenants {
		if t.Name != name {
			continue
		}
		out := &TenantInfo{Name: string(t.Name), PublicURL: t.PublicURL, Registration: t.Registration, KeyID: t.KeyID, VerifyKey: t.VerifyKey}
		err := a.DB.Read(q.Context(), func(tx *storage.Tx) (err error) { out.Users, err = tx.CountUsers(name); return err })
		return out, err
	}
	return nil, noSuchTenant(string(name))
}
