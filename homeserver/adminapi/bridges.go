package adminapi

import (
	"context"
	"net/http"

	"hansa/matrix"
	"hansa/policy"
)

// Bridges are the application services. It is declared here because their package stands above this one.
type Bridges interface {
	// List returns them in the order of their IDs, and why the files that are there are not what is active.
	List(ctx context.Context) (list []Bridge, problem error, err error)
	// Suspend stops one, or lets it go on.
	Suspend(ctx context.Context, id string, suspended bool) error
}

// Bridge is one application service.
type Bridge struct {
	ID     string            `json:"id"`
	Tenant matrix.ServerName `json:"tenant"`
	// URL is where it listens, empty for one that wants to be told of nothing.
	URL string        `json:"url,omitzero"`
	Bot matrix.UserID `json:"bot"`
	// File is the registration; only the operator is told.
	File      string `json:"file,omitzero"`
	Suspended bool   `json:"suspended"`
	// Behind is how many positions of the log it has yet to be told of.
	Behind int64 `json:"behind"`
	// Unconfirmed says that it was sent something and has not said that it has it.
	Unconfirmed bool `json:"unconfirmed"`
	// LastConfirmed is when it last took something, in ms since 1970, 0 for never.
	LastConfirmed int64 `json:"last_confirmed_ts"`
}

// BridgeList is what GET /bridges answers.
type BridgeList struct {
	Bridges []Bridge `json:"bridges"`
	// Problem says why the registration files that are there are not what is active; only the operator is told.
	Problem string `json:"problem,omitzero"`
}

func (a *API) listBridges(w http.ResponseWriter, q *request) error {
	tenant, err := a.only(q)
	if err != nil {
		return err
	}
	list, problem, err := a.Bridges.List(q.Context())
	if err != nil {
		return err
	}
	out := BridgeList{Bridges: []Bridge{}}
	if problem != nil && q.session == nil {
		out.Problem = problem.Error()
	}
	for _, b := range list {
		if tenant != "" && b.Tenant != tenant {
			continue
		}
		if q.session != nil {
			b.File = ""
		}
		out.Bridges = append(out.Bridges, b)
	}
	return writeJSON(w, http.StatusOK, out)
}

// suspendBridge stops a bridge, or lets it go on. Bridges of other tenants are not found.
func (a *API) suspendBridge(suspended bool) handler {
	return func(w http.ResponseWriter, q *request) error {
		if q.session != nil { // before anything shows which bridges there are
			if err := a.ask(q, policy.AdminAction, q.route.action, q.session.Tenant); err != nil {
				return err
			}
		}
		list, _, err := a.Bridges.List(q.Context())
		if err != nil {
			return err
		}
		for _, b := range list {
			if b.ID != q.PathValue("bridge") || q.session != nil && b.Tenant != q.session.Tenant {
				continue
			}
			if q.session == nil {
				if err := a.ask(q, policy.AdminAction, q.route.action, b.Tenant); err != nil {
					return err
				}
			}
			if err := a.Bridges.Suspend(q.Context(), b.ID, suspended); err != nil {
				return err
			}
			b.Suspended = suspended
			if q.session != nil {
				b.File = ""
			}
			return writeJSON(w, http.StatusOK, b)
		}
		return matrix.NotFound("There is no bridge %.100q.", q.PathValue("bridge"))
	}
}
