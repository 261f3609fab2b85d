package homeserver

import (
	"context"
	"fmt"

	"hansa/appservices"
	"hansa/homeserver/account"
	"hansa/homeserver/adminapi"
	"hansa/homeserver/clientapi"
	"hansa/matrix"
	"hansa/policy"
)

var _ clientapi.Bridges = (*appservices.Service)(nil)

// buildBridges reads the registrations of application services.
func (s *Server) buildBridges(ctx context.Context, d Deps, tenants []matrix.ServerName) (err error) {
	s.Bridges, err = appservices.New(ctx, appservices.Deps{DB: s.DB, Stream: s.Stream, Policy: s.Policy, Accounts: s.Accounts, Sync: s.Sync,
		Ephemeral: s.Presence, Out: s.Out, Directory: s.Config.Appservices.Directory, Tenants: tenants, Log: d.Log, Now: d.Now, Registerer: s.Metrics})
	if err != nil {
		return fmt.Errorf("appservices: %w", err)
	}
	return nil
}

// The services below that ask for application services are made before these.

func (s *Server) isReserved(u matrix.UserID) bool { return s.Bridges != nil && s.Bridges.Exclusive(u) }

func (s *Server) bridgeOf(u matrix.UserID) (string, bool) {
	if s.Bridges == nil {
		return "", false
	}
	return s.Bridges.Owner(u)
}

func (s *Server) findBridge(id string) (*account.Bridge, bool) {
	if s.Bridges == nil {
		return nil, false
	}
	return s.Bridges.FindByID(id)
}

func (s *Server) askAlias(ctx context.Context, subject *policy.Party, alias matrix.RoomAlias) bool {
	return s.Bridges != nil && s.Bridges.AskAlias(ctx, subject, alias)
}

func (s *Server) askUser(ctx context.Context, subject *policy.Party, user matrix.UserID) bool {
	return s.Bridges != nil && s.Bridges.AskUser(ctx, subject, user)
}

// bridgeAdmin is what the admin API needs of application services.
type bridgeAdmin struct{ *appservices.Service }

// List implements adminapi.Bridges.
func (b bridgeAdmin) List(ctx context.Context) (list []adminapi.Bridge, problem error, err error) {
	all, problem, err := b.Service.List(ctx)
	for _, s := range all {
		list = append(list, adminapi.Bridge{ID: s.ID, Tenant: s.Tenant, URL: s.URL, Bot: s.Bot, File: s.File, Suspended: s.Suspended, Behind: s.Behind,
			Unconfirmed: s.Unconfirmed, LastConfirmed: s.LastConfirmed})
	}
	return list, problem, err
}
