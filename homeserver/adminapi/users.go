package adminapi

import (
	"net/http"
	"slices"

	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/policy"
)

const maxPage = 1000

// listUsers goes through the accounts of one tenant; for the operator who names none, of all tenants, one after the other.
func (a *API) listUsers(w http.ResponseWriter, q *request) error {
	limit, err := q.number("limit", 100, 1, maxPage)
	if err != nil {
		return err
	}
	tenants, err := a.tenantsOf(q)
	if err != nil {
		return err
	}
	var after matrix.UserID
	if v := q.URL.Query().Get("after"); v != "" {
		if after, err = matrix.ParseUserID(v); err != nil {
			return matrix.InvalidParam("after must be a user ID.")
		}
		if err := a.own(q, after); err != nil {
			return err
		}
		if i := slices.Index(tenants, after.Server()); i > 0 {
			tenants = tenants[i:]
		}
	}
	out := UserList{Users: []*account.Account{}}
	for _, t := range tenants {
		from := after
		if from.Server() != t {
			from = ""
		}
		list, err := a.Accounts.List(q.Context(), a.actor(q, t), t, from, int(limit)-len(out.Users))
		if err != nil {
			return err
		}
		out.Users = append(out.Users, list...)
		if len(out.Users) >= int(limit) {
			out.Next = string(out.Users[len(out.Users)-1].UserID)
			break
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// addUser makes an account. Whoever gives it rights needs the right to do so besides.
func (a *API) addUser(w http.ResponseWriter, q *request) error {
	var body NewUser
	if err := q.decode(w, &body); err != nil {
		return err
	}
	id, err := matrix.ParseUserID(body.UserID)
	if err != nil {
		return matrix.InvalidParam("%.100q is not a user ID; write it as @name:%s.", body.UserID, a.Tenants[0].Name)
	}
	if q.session != nil && id.Server() != q.session.Tenant {
		return noSuchTenant(string(id.Server()))
	}
	if body.Admin || len(body.Roles) > 0 {
		if err := a.findApprover(q, "user.roles"); err != nil {
			return err
		}
		if err := a.ask(q, policy.AdminAction, "user.roles", id.Server()); err != nil {
			return err
		}
	}
	acc, err := a.Accounts.Add(q.Context(), a.actor(q, id.Server()), account.NewUser{ID: id, Kind: body.Kind, Password: body.Password, DisplayName: body.DisplayName,
		Admin: body.Admin, Listed: body.Listed, Pools: body.Pools, Groups: body.Groups, Roles: body.Roles, Attributes: body.Attributes})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, acc)
}

func (a *API) showUser(w http.ResponseWriter, q *request) error {
	id, err := a.user(q)
	if err != nil {
		return err
	}
	acc, err := a.Accounts.Find(q.Context(), a.actor(q, id.Server()), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, acc)
}

func (a *API) setFacts(w http.ResponseWriter, q *request) error {
	id, err := a.user(q)
	if err != nil {
		return err
	}
	var body UserFacts
	if err := q.decode(w, &body); err != nil {
		return err
	}
	if body.Admin != nil || body.Roles != nil { // the service asks for user.roles then; so the second person must have that right, too
		if err := a.findApprover(q, "user.roles"); err != nil {
			return err
		}
	}
	if body.Admin != nil && !*body.Admin {
		if err := q.notSelf(id); err != nil {
			return err
		}
	}
	if err := a.Accounts.SetFacts(q.Context(), a.actor(q, id.Server()), id, account.Facts(body)); err != nil {
		return err
	}
	return empty(w)
}

func (a *API) lockUser(locked bool) handler {
	return a.windDown(locked, func(q *request, id matrix.UserID) error {
		return a.Accounts.Lock(q.Context(), a.actor(q, id.Server()), id, locked)
	})
}

func (a *API) suspendUser(suspended bool) handler {
	return a.windDown(suspended, func(q *request, id matrix.UserID) error {
		return a.Accounts.Suspend(q.Context(), a.actor(q, id.Server()), id, suspended)
	})
}

func (a *API) closeUser(w http.ResponseWriter, q *request) error {
	return a.windDown(true, func(q *request, id matrix.UserID) error {
		return a.Accounts.Close(q.Context(), a.actor(q, id.Server()), id)
	})(w, q)
}

func (a *API) wipeUser(w http.ResponseWriter, q *request) error {
	return a.windDown(true, func(q *request, id matrix.UserID) error {
		return a.Accounts.Wipe(q.Context(), a.actor(q, id.Server()), id)
	})(w, q)
}

// windDown does something to an account; what takes the account away, administrators cannot do to their own.
func (a *API) windDown(takes bool, do func(*request, matrix.UserID) error) handler {
	return func(w http.ResponseWriter, q *request) error {
		id, err := a.user(q)
		if err != nil {
			return err
		}
		if takes {
			if err := q.notSelf(id); err != nil {
				return err
			}
		}
		if err := do(q, id); err != nil {
			return err
		}
		return empty(w)
	}
}

func (a *API) setPassword(w http.ResponseWriter, q *request) error {
	id, err := a.user(q)
	if err != nil {
		return err
	}
	var body NewPassword
	if err := q.decode(w, &body); err != nil {
		return err
	}
	if err := a.Accounts.SetPassword(q.Context(), a.actor(q, id.Server()), id, body.Password); err != nil {
		return err
	}
	return empty(w)
}

// empty is the answer of requests that have nothing to say.
func empty(w http.ResponseWriter) error { return writeJSON(w, http.StatusOK, struct{}{}) }
