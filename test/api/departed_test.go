package api

import (
	"context"
	"path/filepath"
	"testing"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// states are the states of what acme.example has agreed, by partner.
func states(t *testing.T, s *hstest.Server) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) error {
		list, err := tx.LoadAgreements("acme.example")
		for _, a := range list {
			out[string(a.Partner)] = a.State
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func approve(t *testing.T, s *hstest.Server, partner matrix.ServerName) {
	t.Helper()
	by := agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator"}}
	if _, err := s.Agreements.Propose(context.Background(), by, partner, "acme.example", agreement.Terms{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Agreements.Approve(context.Background(), by, "acme.example", partner, agreement.Terms{}); err != nil {
		t.Fatal(err)
	}
}

// Whoever has the domain of a former tenant is somebody else, with whom nothing was agreed.
func TestDeparted_AgreementsAreSuspended(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := hstest.New(t, hstest.Options{Database: database, Tenants: []string{"acme.example", "globex.example", "umbrella.example"}})
			approve(t, s, "globex.example")
			approve(t, s, "umbrella.example")
			s.Config.Tenants = s.Config.Tenants[:2]
			s.Restart()
			if got := states(t, s); got["globex.example"] != "active" || got["umbrella.example"] != "suspended" {
				t.Errorf("after a tenant was taken out: %v", got)
			}
		})
	}
}

// A node that starts with the configuration of before takes nothing from a tenant that another node hosts by now.
func TestDeparted_NotWhileAnotherNodeHostsIt(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{Database: "postgres", Tenants: []string{"acme.example", "globex.example", "umbrella.example"}})
	approve(t, s, "umbrella.example")
	older := hstest.New(t, hstest.Options{NodeOf: s, Change: func(c *config.Config) { c.Tenants = c.Tenants[:2] }})
	if got := states(t, s); got["umbrella.example"] != "active" {
		t.Errorf("beside a node with an older configuration: %v", got)
	}
	older.Stop()
	s.Stop()
	c := *s.Config
	c.Tenants = c.Tenants[:2]
	c.DataDir = filepath.Join(t.TempDir(), "data")
	again, err := homeserver.New(context.Background(), &c, homeserver.Deps{Log: storagetest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer again.DB.Close()
	s.Server = again
	if got := states(t, s); got["umbrella.example"] != "suspended" {
		t.Errorf("when no node hosts it any more: %v", got)
	}
}
