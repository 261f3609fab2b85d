package adminapi

import (
	"context"
	"net/http"

	"hansa/federation/agreement"
	"hansa/matrix"
)

func (a *API) listAgreements(w http.ResponseWriter, q *request) error {
	tenant, err := a.only(q)
	if err != nil {
		return err
	}
	list, err := a.Agreements.List(q.Context(), tenant)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, AgreementList{list})
}

func (a *API) propose(w http.ResponseWriter, q *request) error {
	return a.withTerms(w, q, a.Agreements.Propose)
}

func (a *API) approve(w http.ResponseWriter, q *request) error {
	return a.withTerms(w, q, a.Agreements.Approve)
}

func (a *API) suspend(w http.ResponseWriter, q *request) error {
	return a.changeAgreement(w, q, func(ctx context.Context, by agreement.Actor, owner, partner matrix.ServerName) (*agreement.Record, error) {
		return a.Agreements.Suspend(ctx, by, owner, partner)
	})
}

func (a *API) end(w http.ResponseWriter, q *request) error {
	return a.changeAgreement(w, q, func(ctx context.Context, by agreement.Actor, owner, partner matrix.ServerName) (*agreement.Record, error) {
		return a.Agreements.End(ctx, by, owner, partner)
	})
}

func (a *API) withTerms(w http.ResponseWriter, q *request,
	do func(context.Context, agreement.Actor, matrix.ServerName, matrix.ServerName, agreement.Terms) (*agreement.Record, error)) error {
	var terms agreement.Terms
	if err := q.decode(w, &terms); err != nil {
		return err
	}
	return a.changeAgreement(w, q, func(ctx context.Context, by agreement.Actor, owner, partner matrix.ServerName) (*agreement.Record, error) {
		return do(ctx, by, owner, partner, terms)
	})
}

// changeAgreement finds the two domains: the owner is the tenant of the request, the partner stands in the path.
func (a *API) changeAgreement(w http.ResponseWriter, q *request,
	do func(ctx context.Context, by agreement.Actor, owner, partner matrix.ServerName) (*agreement.Record, error)) error {
	owner, err := a.tenant(q, q.URL.Query().Get("tenant"))
	if err != nil {
		return err
	}
	partner, err := agreement.ParsePartner(q.PathValue("partner"))
	if err != nil {
		return err
	}
	r, err := do(q.Context(), a.agreementActor(q, owner), owner, partner)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, r)
}
