package api

import (
	"context"
	"os"
	"strings"
	"testing"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver"
	"hansa/homeserver/account"
	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// The name of an account that was closed is not given out again, in whatever way it is asked for; so nobody comes into its rooms, direct chats,
// invitations, sessions and devices.
func TestR362_NamesAreNotGivenOutAgain(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: partnerPolicy("")}, func(t *testing.T, s *hstest.Server) {
		ctx := context.Background()
		anna, gus := s.User("anna"), s.User("@gus:globex.example")
		direct := gus.CreateRoom(object{"is_direct": true, "invite": []any{anna.ID}})
		anna.Join(direct)
		waiting := gus.CreateRoom(object{"invite": []any{anna.ID}})
		if err := s.Accounts.Wipe(ctx, account.Operator("test"), anna.ID); err != nil {
			t.Fatal(err)
		}
		if a := anna.Try("GET", "/account/whoami", nil); a.Status != 401 {
			t.Errorf("the old token: %d %s", a.Status, a.Raw)
		}
		gus.Until("anna's leaving", func(hstest.Answer) bool {
			for _, room := range []string{direct, waiting} {
				for _, m := range []string{"join", "invite"} {
					if strings.Contains(string(gus.Must("GET", at(room)+"/members?membership="+m, nil).Raw), `"state_key":"`+string(anna.ID)) {
						return false
					}
				}
			}
			return true
		})
		register := object{"username": "anna", "password": hstest.Password, "auth": object{"type": "m.login.dummy"}}
		wants(t, "registering the name", s.Do("POST", "/register", "", register), 400, "M_USER_IN_USE")
		if _, err := s.Accounts.Add(ctx, account.Operator("test"), account.NewUser{ID: anna.ID, Password: hstest.Password}); err == nil || !strings.Contains(err.Error(), "taken") {
			t.Errorf("the name by an administrator: %v", err)
		}
		login := object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": string(anna.ID)}, "password": hstest.Password}
		if a := s.Do("POST", "/login", "", login); a.Status != 403 {
			t.Errorf("login: %d %s", a.Status, a.Raw)
		}
	})
}

// A domain whose key is another one is not the domain that was hosted before: the server does not start with what was there.
func TestR362_DomainWithAnotherKey(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		s.User("anna")
		s.Stop()
		if err := os.Remove(s.Config.Tenants[0].SigningKeyFile); err != nil {
			t.Fatal(err)
		}
		srv, err := homeserver.New(context.Background(), s.Config, homeserver.Deps{Log: storagetest.Quiet(), Version: "test"})
		if err == nil {
			err = srv.DB.Close()
			t.Fatalf("a domain with another key inherits accounts, rooms and agreements (%v)", err)
		}
		if !strings.Contains(err.Error(), "signing keys of acme.example") {
			t.Errorf("the refusal does not say why: %v", err)
		}
	})
}

// A domain that has left this deployment takes no agreement along: whoever has it next is elsewhere, and nobody has agreed with them.
func TestR362_AgreementsEndWithTheTenant(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		ctx := context.Background()
		by := agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator"}}
		if _, err := s.Agreements.Propose(ctx, by, "acme.example", "globex.example", agreement.Terms{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Agreements.Approve(ctx, by, "globex.example", "acme.example", agreement.Terms{}); err != nil {
			t.Fatal(err)
		}
		state := func() string {
			t.Helper()
			list, err := s.Agreements.List(ctx, "acme.example")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				if r.Owner == "acme.example" && r.Partner == "globex.example" {
					return r.State
				}
			}
			return ""
		}
		inbound := func() bool {
			d := s.Policy.Decide(ctx, &policy.Input{Point: policy.FederationInbound, Tenant: policy.Tenant{Name: "acme.example"},
				Subject: policy.ServerParty("globex.example", false), Server: &policy.Server{Name: "globex.example"}})
			return d.Allow
		}
		if state() != "active" {
			t.Fatalf("agreement between two tenants: %q", state())
		}
		both := s.Config.Tenants
		host := func(tenants []config.Tenant) {
			s.Config.Tenants = tenants
			s.Restart()
		}
		host(both[:1])
		if state() != "suspended" || inbound() {
			t.Errorf("after the domain has left: %q, let in: %v", state(), inbound())
		}
		if _, err := s.Agreements.Approve(ctx, by, "acme.example", "globex.example", agreement.Terms{}); err != nil {
			t.Fatal(err)
		}
		if s.Restart(); state() != "active" || !inbound() {
			t.Errorf("approved again, as a domain elsewhere: %q, let in: %v", state(), inbound())
		}
		host(both)
		host(both[:1])
		if state() != "suspended" {
			t.Errorf("after it has come and gone once more: %q", state())
		}
	})
}
