package homeserver

import (
	"context"
	"fmt"

	"hansa/appservices"
	"hansa/homeserver/account"
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
