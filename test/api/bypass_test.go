package api

import (
	"context"
	"strings"
	"testing"

	"hansa/homeserver/account"
	"hansa/storage"
	"hansa/test/hstest"
)

// walls is a policy with a closed pool in acme and an agreement with globex.
func walls() map[string]string {
	return map[string]string{
		"acme.example/pools.yaml":      "vault: {groups: [vault], contact: closed}\n",
		"acme.example/partners.yaml":   `partners: {globex.example: {pools: "*", features: "*"}}` + "\n",
		"globex.example/partners.yaml": `partners: {acme.example: {pools: "*", features: "*"}}` + "\n",
	}
}

// same checks that two answers tell nothing apart: a thing that is denied looks like one that is not there.
func same(t testing.TB, what string, denied, absent hstest.Answer, status int, code string) {
	t.Helper()
	wants(t, what+", denied", denied, status, code)
	wants(t, what+", absent", absent, status, code)
	if denied.String("error") != absent.String("error") {
		t.Errorf("%s: %q and %q tell what is there", what, denied.String("error"), absent.String("error"))
	}
}

// An alias leads nowhere for who may not be in its room, nor to a server that nobody has agreed with.
func TestP291_AliasResolution(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: walls()}, func(t *testing.T, s *hstest.Server) {
		anna, vera := s.User("anna"), s.User("vera", "vault")
		vera.CreateRoom(map[string]any{"preset": "public_chat", "room_alias_name": "vault"})
		look := func(alias string) hstest.Answer {
			return anna.Try("GET", "/directory/room/"+hstest.Esc(alias), nil)
		}
		same(t, "alias", look("#vault:acme.example"), look("#never:acme.example"), 404, "M_NOT_FOUND")
		wants(t, "alias of a server without agreement", look("#x:denied.example"), 404, "M_NOT_FOUND")
		for _, verb := range []string{"join", "knock"} {
			a := anna.Try("POST", "/"+verb+"/"+hstest.Esc("#vault:acme.example"), []byte(`{}`))
			b := anna.Try("POST", "/"+verb+"/"+hstest.Esc("#never:acme.example"), []byte(`{}`))
			same(t, verb+" by alias", a, b, 404, "M_NOT_FOUND")
			wants(t, verb+" by an alias of a server without agreement", anna.Try("POST", "/"+verb+"/"+hstest.Esc("#x:denied.example"), []byte(`{}`)), 404, "M_NOT_FOUND")
		}
		if a := vera.Try("GET", "/directory/room/"+hstest.Esc("#vault:acme.example"), nil); a.Status != 200 {
			t.Errorf("who may: %d %s", a.Status, a.Raw)
		}
	})
}

// The profile of somebody out of reach is that of nobody, field by field.
func TestP297_ProfileLookup(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: walls()}, func(t *testing.T, s *hstest.Server) {
		anna, vera := s.User("anna"), s.User("vera", "vault")
		for _, f := range []string{"displayname", "com.example.field"} {
			vera.Must("PUT", "/profile/"+hstest.Esc(string(vera.ID))+"/"+f, map[string]any{f: "CANARY of vera"})
		}
		for _, who := range []*hstest.User{anna, {S: s}} {
			for _, f := range []string{"", "/displayname", "/avatar_url", "/com.example.field", "/com.example.none"} {
				a := who.Try("GET", "/profile/"+hstest.Esc(string(vera.ID))+f, nil)
				b := who.Try("GET", "/profile/"+hstest.Esc("@never:acme.example")+f, nil)
				if who == anna {
					same(t, "profile"+f, a, b, 404, "M_NOT_FOUND")
				} else if a.Status != b.Status || a.Code() != b.Code() || a.Status == 200 {
					t.Errorf("profile%s without a token: %d %s and %d %s", f, a.Status, a.Raw, b.Status, b.Raw)
				}
				if strings.Contains(string(a.Raw), "CANARY") {
					t.Errorf("profile%s: %s", f, a.Raw)
				}
				if r := who.Try("GET", "/profile/"+hstest.Esc("@x:denied.example")+f, nil); r.Status != 404 && r.Status != 401 {
					t.Errorf("profile%s of a server without agreement: %d %s", f, r.Status, r.Raw)
				}
			}
		}
	})
}

// After a wall has come between two people, nothing of what they shared brings them together again.
func TestP298_SharedDataAfterDenial(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: map[string]string{"acme.example/pools.yaml": "vault: {groups: [vault], contact: open}\n"}}, func(t *testing.T, s *hstest.Server) {
		anna, vera := s.User("anna"), s.User("vera", "vault")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		vera.Must("PUT", "/profile/"+hstest.Esc(string(vera.ID))+"/displayname", map[string]any{"displayname": "CANARY"})
		vera.Join(room)
		vera.Send(room, "CANARY speaks")
		a := anna.Must("GET", "/sync?timeout=0", nil)
		if !strings.Contains(string(a.Raw), "CANARY") {
			t.Fatalf("while they may meet: %s", a.Raw)
		}
		s.WritePolicy("acme.example/pools.yaml", "vault: {groups: [vault], contact: closed}\n")
		s.ReloadPolicy()
		for _, path := range []string{"/sync?timeout=0", "/sync?timeout=0&full_state=true", at(room) + "/state", at(room) + "/members", at(room) + "/joined_members", at(room) + "/messages?dir=b",
			at(room) + "/state/m.room.member/" + hstest.Esc(string(vera.ID)), at(room) + "/context/" + hstest.Esc(string(events(s, room)[0].ID)), "/publicRooms"} {
			if a := anna.Try("GET", path, nil); strings.Contains(string(a.Raw), "CANARY") || strings.Contains(string(a.Raw), string(vera.ID)) || a.Status >= 500 {
				t.Errorf("%s tells of somebody behind a wall: %d %s", path, a.Status, a.Raw)
			}
		}
		if a := anna.Must("POST", "/user_directory/search", []byte(`{"search_term":"canary"}`)); strings.Contains(string(a.Raw), "CANARY") {
			t.Errorf("the directory finds somebody behind a wall: %s", a.Raw)
		}
		if a := anna.Try("PUT", at(room)+"/send/m.room.message/"+anna.Txn(), []byte(`{"msgtype":"m.text","body":"x"}`)); a.Status != 403 {
			t.Errorf("a message into a room that holds somebody behind a wall: %d %s", a.Status, a.Raw)
		}
	})
}

// A search finds nobody out of reach, by whatever part of the name.
func TestP299_UserDirectory(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: walls()}, func(t *testing.T, s *hstest.Server) {
		anna, ben, vera := s.User("anna"), s.User("ben"), s.User("vera", "vault")
		victor := s.User("victor", "vault")
		gus := s.User("@gus:globex.example")
		for _, u := range []*hstest.User{ben, vera, victor, gus} {
			u.Must("PUT", "/profile/"+hstest.Esc(string(u.ID))+"/displayname", map[string]any{"displayname": "Shared Name " + u.ID.Localpart()})
		}
		find := func(u *hstest.User, term string) string {
			return string(u.Must("POST", "/user_directory/search", map[string]any{"search_term": term, "limit": 100}).Raw)
		}
		vera.Until("her own pool", func(hstest.Answer) bool { return strings.Contains(find(vera, "shared"), "victor") })
		for _, term := range []string{"shared", "name", "vera", "VERA", "ver", string(vera.ID), "@vera", "vera:acme", "Shared Name vera"} {
			if got := find(anna, term); strings.Contains(got, "vera") || strings.Contains(got, "victor") {
				t.Errorf("%q finds somebody out of reach: %s", term, got)
			}
			if got := find(gus, term); strings.Contains(got, "vera") || strings.Contains(got, "victor") {
				t.Errorf("%q finds somebody out of reach from another tenant: %s", term, got)
			}
		}
		if got := find(anna, "shared"); !strings.Contains(got, "ben") {
			t.Errorf("who is within reach is not found: %s", got)
		}
		if got := find(vera, "shared"); strings.Contains(got, "ben") {
			t.Errorf("from inside a closed pool others are found: %s", got)
		}
	})
}

// While an agreement rests, nobody on the other side hears who types.
func TestP302_Typing(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: walls()}, func(t *testing.T, s *hstest.Server) {
		anna, gus := s.User("anna"), s.User("@gus:globex.example")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		gus.Join(room)
		gus.Sync(0)
		typing := func(on bool) hstest.Answer {
			return anna.Try("PUT", at(room)+"/typing/"+hstest.Esc(string(anna.ID)), map[string]any{"typing": on, "timeout": 20000})
		}
		if a := typing(true); a.Status != 200 {
			t.Fatalf("typing: %d %s", a.Status, a.Raw)
		}
		gus.Until("anna's typing", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "m.typing") })
		typing(false)
		gus.Until("the end of it", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "m.typing") })
		s.WritePolicy("acme.example/partners.yaml", "partners: {}\n")
		s.ReloadPolicy()
		survives(t, "typing under a suspended agreement", typing(true))
		for range 2 {
			if a := gus.Sync(0); strings.Contains(string(a.Raw), string(anna.ID)) {
				t.Errorf("the other side hears: %s", a.Raw)
			}
		}
	})
}

// What somebody may not see does not count for them either.
func TestP314_NoBadgeForWhatIsHidden(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: map[string]string{"acme.example/pools.yaml": "vault: {groups: [vault], contact: open}\n"}}, func(t *testing.T, s *hstest.Server) {
		anna, vera := s.User("anna"), s.User("vera", "vault")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		vera.Join(room)
		anna.Sync(0)
		vera.Must("PUT", at(room)+"/send/m.room.message/"+vera.Txn(), map[string]any{"msgtype": "m.text", "body": "CANARY anna", "m.mentions": map[string]any{"user_ids": []string{string(anna.ID)}}})
		a := anna.Until("a mention", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), "CANARY") })
		if n := a.Get("rooms", "join", room, "unread_notifications", "highlight_count"); n != 1.0 {
			t.Errorf("highlight_count %v while they may meet", n)
		}
		s.WritePolicy("acme.example/pools.yaml", "vault: {groups: [vault], contact: closed}\n")
		s.ReloadPolicy()
		anna.Since = ""
		a = anna.Sync(0)
		for _, k := range []string{"highlight_count", "notification_count"} {
			if n := a.Get("rooms", "join", room, "unread_notifications", k); n != nil && n != 0.0 {
				t.Errorf("%s is %v for messages of somebody behind a wall", k, n)
			}
		}
		// Invitations of somebody out of reach are not shown, nor counted.
		invitation := vera.Try("POST", "/createRoom", map[string]any{"invite": []string{string(anna.ID)}})
		wants(t, "invitation over the wall", invitation, 403, "M_FORBIDDEN")
		if a := anna.Sync(0); a.Get("rooms", "invite") != nil {
			t.Errorf("an invitation over the wall: %s", a.Raw)
		}
	})
}

// There are no guests, and no token that is not somebody's opens a door.
func TestP318_NoGuests(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat", "initial_state": []any{map[string]any{"type": "m.room.guest_access", "content": map[string]any{"guest_access": "can_join"}}}})
	for _, body := range []string{`{}`, `{"username":"guest1","password":"` + hstest.Password + `"}`, `{"auth":{"type":"m.login.dummy"}}`} {
		wants(t, "a guest account with "+body, s.Do("POST", "/register?kind=guest", "", []byte(body)), 403, "M_FORBIDDEN")
	}
	for _, path := range []string{at(room) + "/messages?dir=b", at(room) + "/state", "/sync", at(room) + "/event/$x"} {
		wants(t, "without a token "+path, s.Do("GET", path, "", nil), 401, "M_MISSING_TOKEN")
	}
	if a := anna.Must("GET", "/account/whoami", nil); a.Get("is_guest") != false {
		t.Errorf("whoami: %s", a.Raw)
	}
}

// A password that was reset and an account that was closed leave nothing that still opens, and nothing to be found.
func TestAD378_ResetAndRevoke(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		ctx := context.Background()
		admin := account.Operator("test")
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		ben.Must("PUT", "/profile/"+hstest.Esc(string(ben.ID))+"/displayname", map[string]any{"displayname": "Ben Canary"})
		second := s.Do("POST", "/login", "", login("ben", hstest.Password, `,"refresh_token":true`))
		dead := func(what string) {
			t.Helper()
			for _, token := range []string{ben.Token, second.String("access_token")} {
				wants(t, what, s.Do("GET", "/account/whoami", token, nil), 401, "M_UNKNOWN_TOKEN")
			}
			if a := s.Do("POST", "/refresh", "", map[string]any{"refresh_token": second.String("refresh_token")}); a.Status != 401 {
				t.Errorf("%s: refresh: %d %s", what, a.Status, a.Raw)
			}
		}
		if err := s.Accounts.SetPassword(ctx, admin, ben.ID, "Another-horse-10-battery"); err != nil {
			t.Fatal(err)
		}
		dead("after a reset")
		wants(t, "the old password", s.Do("POST", "/login", "", login("ben", hstest.Password)), 403, "M_FORBIDDEN")
		if second = s.Do("POST", "/login", "", login("ben", "Another-horse-10-battery", `,"refresh_token":true`)); second.Status != 200 {
			t.Fatalf("the new password: %d %s", second.Status, second.Raw)
		}
		ben.Token = second.String("access_token")
		if err := s.Accounts.Wipe(ctx, admin, ben.ID); err != nil {
			t.Fatal(err)
		}
		dead("after closing")
		wants(t, "login to a closed account", s.Do("POST", "/login", "", login("ben", "Another-horse-10-battery")), 403, "M_FORBIDDEN")
		if a := anna.Try("GET", "/profile/"+hstest.Esc(string(ben.ID)), nil); strings.Contains(string(a.Raw), "Canary") {
			t.Errorf("the profile of a closed account: %s", a.Raw)
		}
		hstest.Await(t, "the directory without a closed account", func() bool {
			return !strings.Contains(string(anna.Must("POST", "/user_directory/search", []byte(`{"search_term":"ben"}`)).Raw), "ben")
		})
		anna.Until("ben's leaving", func(hstest.Answer) bool {
			left := false
			err := s.DB.Read(ctx, func(tx *storage.Tx) error {
				m, _, err := tx.FindMember(events(s, room)[0].RoomID, ben.ID)
				left = m.Membership == "leave"
				return err
			})
			return err == nil && left
		})
		wants(t, "the name again", s.Do("POST", "/register", "", []byte(`{"username":"ben","password":"`+hstest.Password+`","auth":{"type":"m.login.dummy"}}`)), 400, "M_USER_IN_USE")
		if err := s.Accounts.SetPassword(ctx, admin, ben.ID, hstest.Password); err == nil {
			dead("after a password for a closed account")
			if a := s.Do("POST", "/login", "", login("ben", hstest.Password)); a.Status == 200 {
				t.Errorf("a closed account was opened by a password: %s", a.Raw)
			}
		}
	})
}
