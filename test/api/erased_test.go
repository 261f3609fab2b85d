package api

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"hansa/config"
	"hansa/homeserver/account"
	"hansa/test/hstest"
)

// closeAccount closes an account, as its user does.
func closeAccount(u *hstest.User, body object) hstest.Answer {
	first := u.Try("POST", "/account/deactivate", body)
	body["auth"] = object{"type": "m.login.password", "session": first.String("session"), "identifier": object{"type": "m.id.user", "user": string(u.ID)}, "password": hstest.Password}
	return u.Must("POST", "/account/deactivate", body)
}

// gone waits until somebody has left a room, as others see it.
func gone(by *hstest.User, room string, who *hstest.User) {
	by.Until(string(who.ID)+" leaving", func(a hstest.Answer) bool {
		for _, e := range a.Timeline(room) {
			if c, _ := e["content"].(map[string]any); e["type"] == "m.room.member" && e["state_key"] == string(who.ID) && c["membership"] == "leave" {
				return true
			}
		}
		return false
	})
}

// What somebody has sent who wants to be erased is told redacted to those who come into a room later. Those who were there before, and what others have
// sent, are not concerned; nor is what somebody has sent who closed an account and no more.
func TestF121_ErasedUserForClients(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben, dora, emil, kurt := s.User("anna"), s.User("ben"), s.User("dora"), s.User("emil"), s.User("kurt")
		anna.Must("PUT", "/profile/"+hstest.Esc(string(anna.ID))+"/displayname", object{"displayname": "Canary name"})
		room := ben.CreateRoom(object{"preset": "public_chat"})
		for _, u := range []*hstest.User{anna, dora, kurt} {
			u.Join(room)
		}
		ben.Sync(0)
		said := anna.Send(room, "Canary message")
		kept := kurt.Send(room, "Kurt's message")
		topic := anna.Try("PUT", "/rooms/"+hstest.Esc(room)+"/state/org.example.note/x", object{"note": "x"})
		is(t, "state without the right to set it", topic, 403, "M_FORBIDDEN")
		ben.Send(room, "Ben's message")
		emil.Join(room) // after the message, before the end
		if a := closeAccount(anna, object{"erase": true}); a.String("id_server_unbind_result") != "success" {
			t.Errorf("there was nothing to unbind: %s", a.Raw)
		}
		closeAccount(kurt, object{})
		gone(ben, room, kurt)
		late := s.User("late")
		late.Join(room)
		look := func(u *hstest.User) map[string]hstest.Answer {
			p := "/rooms/" + hstest.Esc(room)
			u.Since = ""
			return map[string]hstest.Answer{
				"sync": u.Sync(0, "filter", `{"room":{"timeline":{"limit":100}}}`), "messages": u.Must("GET", p+"/messages?dir=b&limit=100", nil),
				"event": u.Must("GET", p+"/event/"+hstest.Esc(said), nil), "context": u.Must("GET", p+"/context/"+hstest.Esc(kept)+"?limit=50", nil),
				"members": u.Must("GET", p+"/members", nil),
			}
		}
		check := func(u *hstest.User, whole bool) {
			t.Helper()
			for what, a := range look(u) {
				text := string(a.Raw)
				if got := strings.Contains(text, "Canary message"); got != (whole && what != "members") {
					t.Errorf("%s, %s: the message is there: %v", u.ID, what, got)
				}
				if !whole && strings.Contains(text, "Canary") {
					t.Errorf("%s, %s: something of it is there: %.2000s", u.ID, what, text)
				}
				if what != "members" && !strings.Contains(text, said) {
					t.Errorf("%s, %s: the event is not there at all", u.ID, what)
				}
				if (what == "messages" || what == "sync") && (!strings.Contains(text, "Kurt's message") || !strings.Contains(text, "Ben's message")) {
					t.Errorf("%s, %s: what others have sent is not there", u.ID, what)
				}
			}
		}
		check(late, false)
		for _, u := range []*hstest.User{ben, dora, emil} {
			check(u, true)
		}
		if a := late.Must("GET", "/rooms/"+hstest.Esc(room)+"/event/"+hstest.Esc(said), nil); a.String("type") != "m.room.message" || a.String("sender") != string(anna.ID) ||
			fmt.Sprint(a.Get("content")) != "map[]" {
			t.Errorf("redacted: %s", a.Raw)
		}
		s.Restart()
		check(late, false)
		check(dora, true)
		// Leaving and coming back is coming later, for what was sent while away.
		dora.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		dora.Join(room)
		check(dora, true)
	})
}

// An administrator closes an account, and erases one, by the admin service.
func TestF121_AdminErases(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben, kurt := s.User("anna"), s.User("ben"), s.User("kurt")
		room := ben.CreateRoom(object{"preset": "public_chat"})
		anna.Join(room)
		kurt.Join(room)
		anna.Send(room, "Canary message")
		kurt.Send(room, "Kurt's message")
		ben.Sync(0)
		by := account.Operator("they have left")
		if err := s.Accounts.Wipe(t.Context(), by, anna.ID); err != nil {
			t.Fatal(err)
		}
		if err := s.Accounts.Close(t.Context(), by, kurt.ID); err != nil {
			t.Fatal(err)
		}
		gone(ben, room, kurt)
		for _, u := range []*hstest.User{anna, kurt} {
			is(t, "the session", u.Try("GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
			is(t, "the profile", ben.Try("GET", "/profile/"+hstest.Esc(string(u.ID)), nil), 404, "M_NOT_FOUND")
		}
		late := s.User("late")
		late.Join(room)
		text := string(late.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil).Raw)
		if strings.Contains(text, "Canary") || !strings.Contains(text, "Kurt's message") {
			t.Errorf("history for somebody who comes later: %s", text)
		}
	})
}

// The places that a third-party invitation names are never asked, whoever sends it and whatever comes of it.
func TestU241_KeyValidityURL(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer internal.Close()
	opened := make(chan net.Conn, 100)
	internal.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened <- c
		}
	}
	each(t, hstest.Options{Change: func(c *config.Config) { c.Federation.AllowPrivateAddresses = true }}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(nil)
		key := publicName(seedKey("identity server"))
		invite := object{"display_name": "b...@example.org", "key_validity_url": internal.URL + "/_matrix/identity/v2/pubkey/isvalid", "public_key": key,
			"public_keys": []any{object{"public_key": key, "key_validity_url": internal.URL + "/isvalid"}}}
		anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.third_party_invite/token", invite)
		made := anna.Must("POST", "/createRoom", object{"initial_state": []any{object{"type": "m.room.third_party_invite", "state_key": "token", "content": invite}}}).String("room_id")
		for _, id := range []string{room, made} {
			signed := sealed(t, "identity.example", object{"mxid": ben.ID, "token": "token"}, "ed25519:0", seedKey("identity server"))
			for _, who := range []*hstest.User{anna, ben} {
				who.Try("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.member/"+hstest.Esc(string(ben.ID)), object{"membership": "invite",
					"third_party_invite": object{"display_name": "b", "signed": signed}})
			}
			ben.Try("POST", "/join/"+hstest.Esc(id), object{"third_party_signed": object{"mxid": ben.ID, "sender": anna.ID, "token": "token",
				"signatures": object{"identity.example": object{"ed25519:0": "x"}}}})
			anna.Send(id, "afterwards")
		}
		anna.Until("the message", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "afterwards") })
	})
	if asked.Load() != 0 || len(opened) != 0 {
		t.Errorf("%d requests, %d connections", asked.Load(), len(opened))
	}
}

// No identity server is trusted, and whichever a client names is not asked.
func TestU242_IdentityServerOfTheClient(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			opened <- struct{}{}
			_ = c.Close()
		}
	}()
	s := hstest.New(t, hstest.Options{Change: func(c *config.Config) { c.Federation.AllowPrivateAddresses = true }})
	anna := s.User("anna")
	evil := listener.Addr().String()
	address := object{"id_server": evil, "id_access_token": "x", "medium": "email", "address": "ben@example.org"}
	room := anna.CreateRoom(nil)
	is(t, "invitation", anna.Try("POST", "/rooms/"+hstest.Esc(room)+"/invite", address), 400, "M_SERVER_NOT_TRUSTED")
	is(t, "without a server", anna.Try("POST", "/rooms/"+hstest.Esc(room)+"/invite", object{"medium": "email", "address": "ben@example.org"}), 403, "M_THREEPID_DENIED")
	is(t, "invitation into a new room", anna.Try("POST", "/createRoom", object{"invite_3pid": []any{address}}), 400, "M_SERVER_NOT_TRUSTED")
	for _, path := range []string{"/account/3pid/bind", "/account/3pid/unbind", "/account/3pid/add", "/account/3pid/delete", "/account/3pid/email/requestToken",
		"/account/password/email/requestToken", "/register/email/requestToken"} {
		if a := anna.Try("POST", path, object{"id_server": evil, "id_access_token": "x", "medium": "email", "address": "a@example.org", "email": "a@example.org",
			"client_secret": "x", "sid": "1", "send_attempt": 1}); a.Status != 404 && a.Status != 405 && a.Status != 400 {
			t.Errorf("%s: %d %s", path, a.Status, a.Raw)
		}
	}
	if a := closeAccount(anna, object{"id_server": evil}); a.String("id_server_unbind_result") != "success" { // there is nothing to unbind
		t.Errorf("closing the account: %s", a.Raw)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if len(opened) != 0 {
		t.Errorf("%d connections were opened", len(opened))
	}
}
