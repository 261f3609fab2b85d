package bridges

import (
	"strings"
	"testing"

	"hansa/test/hstest"
)

// B426: a bridge acts as its own users and as nobody else, however they are called.
func TestB426_MasqueradeOutsideOfTheNamespace(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc, mail := newBridge(t, "irc"), newBridge(t, "mail")
		s := start(t, database, irc, mail)
		ann := s.User("ann")
		s.User("irc_person") // made by an administrator before the bridge came: a real person
		gus := s.User("@irc_gus:globex.example")
		bob := irc.ghost(s, "bob")
		if got := irc.must(s, "", "GET", "/account/whoami", nil).String("user_id"); got != "@ircbot:acme.example" {
			t.Errorf("the bot is %s", got)
		}
		if got := irc.must(s, bob, "GET", "/account/whoami", nil).String("user_id"); got != bob {
			t.Errorf("acts as %s, wants %s", got, bob)
		}
		for what, id := range map[string]string{"outside of the namespace": string(ann.ID), "a real person inside": "@irc_person:acme.example",
			"another tenant": string(gus.ID), "another server": "@irc_x:elsewhere.example", "not registered": "@irc_nobody:acme.example",
			"the bot of another bridge": "@mailbot:acme.example", "no user ID": "irc_bob", "with a NUL": "@irc_\x00:acme.example"} {
			want(t, what, irc.act(s, id, "GET", "/account/whoami", nil), 403, "M_FORBIDDEN")
		}
		want(t, "another bridge's token", mail.act(s, bob, "GET", "/account/whoami", nil), 403, "M_FORBIDDEN")
		want(t, "a person who names a ghost acts as themselves", hstest.Answer{Status: 200}, 200, "")
		if got := ann.Must("GET", "/account/whoami?user_id="+bob, nil).String("user_id"); got != string(ann.ID) {
			t.Errorf("a person became %s", got)
		}
		if a := s.Do("GET", "/account/whoami?access_token="+irc.as+"&user_id="+bob, "", nil); a.String("user_id") != bob {
			t.Errorf("the token in the query string: %d %s", a.Status, a.Raw)
		}
		if a := s.Do("GET", "/account/whoami?access_token="+ann.Token, "", nil); a.Status != 401 {
			t.Errorf("a person's token in the query string: %d %s", a.Status, a.Raw)
		}
		for _, token := range []string{irc.hs, irc.as + "x", strings.ToUpper(irc.as), irc.as[:32]} {
			want(t, "a wrong token", s.Do("GET", "/account/whoami", token, nil), 401, "M_UNKNOWN_TOKEN")
		}
		// Neither registration nor login reach further.
		for _, name := range []string{"carol", "mail_carol"} {
			want(t, "register "+name, s.Do("POST", "/register", irc.as, map[string]any{"type": "m.login.application_service", "username": name}), 400, "M_EXCLUSIVE")
		}
		want(t, "register a real person again", s.Do("POST", "/register", irc.as, map[string]any{"type": "m.login.application_service", "username": "irc_person"}), 400, "M_USER_IN_USE")
		login := func(token, user string) hstest.Answer {
			return s.Do("POST", "/login", token, map[string]any{"type": "m.login.application_service", "identifier": map[string]any{"type": "m.id.user", "user": user}})
		}
		want(t, "login as a person", login(irc.as, string(ann.ID)), 400, "M_EXCLUSIVE")
		want(t, "login as a real person inside", login(irc.as, "irc_person"), 403, "M_FORBIDDEN")
		want(t, "login without a token", login("", "irc_bob"), 401, "M_MISSING_TOKEN")
		want(t, "login with a person's token", login(ann.Token, "irc_bob"), 401, "M_UNKNOWN_TOKEN")
		a := login(irc.as, "irc_bob")
		if a.Status != 200 || a.String("user_id") != bob || a.String("access_token") == "" {
			t.Errorf("login as a ghost: %d %s", a.Status, a.Raw)
		}
		if got := s.Do("GET", "/account/whoami", a.String("access_token"), nil).String("user_id"); got != bob {
			t.Errorf("the ghost's own session is of %q", got)
		}
		// Others cannot take names that are reserved.
		taken := map[string]any{"username": "irc_carol", "password": hstest.Password, "auth": map[string]any{"type": "m.login.dummy"}}
		want(t, "a person registers in the namespace", s.Do("POST", "/register", "", taken), 400, "M_EXCLUSIVE")
		want(t, "is it free", s.Do("GET", "/register/available?username=irc_carol", "", nil), 400, "M_EXCLUSIVE")
		want(t, "the bot's name", s.Do("GET", "/register/available?username=ircbot", "", nil), 400, "M_EXCLUSIVE")
		room := ann.CreateRoom(nil)
		want(t, "a person's alias", ann.Try("PUT", "/directory/room/"+hstest.Esc("#irc_x:acme.example"), map[string]any{"room_id": room}), 400, "M_EXCLUSIVE")
		want(t, "a person's room", ann.Try("POST", "/createRoom", map[string]any{"room_alias_name": "irc_x"}), 400, "M_EXCLUSIVE")
		want(t, "a bridge's alias outside", irc.act(s, bob, "POST", "/createRoom", map[string]any{"room_alias_name": "mail_x"}), 400, "M_EXCLUSIVE")
		want(t, "a bridge's plain alias", irc.act(s, bob, "POST", "/createRoom", map[string]any{"room_alias_name": "plain"}), 400, "M_EXCLUSIVE")
		irc.must(s, bob, "POST", "/createRoom", map[string]any{"room_alias_name": "irc_x"})
		// Accounts are not the bridge's to manage.
		want(t, "change a password", irc.act(s, bob, "POST", "/account/password", map[string]any{"new_password": "Another-horse-9-battery"}), 403, "M_FORBIDDEN")
		want(t, "deactivate", irc.act(s, bob, "POST", "/account/deactivate", map[string]any{}), 403, "M_FORBIDDEN")
	})
}

// B427: a device that the user does not have.
func TestB427_UnknownDeviceMasquerade(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc := newBridge(t, "irc")
		s := start(t, database, irc)
		bob, eve := irc.ghost(s, "bob"), irc.ghost(s, "eve")
		want(t, "unknown", irc.act(s, bob, "GET", "/account/whoami?device_id=NONE", nil), 400, "M_UNKNOWN_DEVICE")
		if a := irc.act(s, bob, "PUT", "/devices/PHONE", map[string]any{"display_name": "phone"}); a.Status != 201 {
			t.Fatalf("make a device: %d %s", a.Status, a.Raw)
		}
		irc.must(s, bob, "PUT", "/devices/PHONE", map[string]any{"display_name": "old phone"})
		if got := irc.must(s, bob, "GET", "/account/whoami?device_id=PHONE", nil).String("device_id"); got != "PHONE" {
			t.Errorf("device %q", got)
		}
		if got := irc.must(s, bob, "GET", "/account/whoami", nil); got.Get("device_id") != nil {
			t.Errorf("a device without one: %s", got.Raw)
		}
		want(t, "somebody else's", irc.act(s, eve, "GET", "/account/whoami?device_id=PHONE", nil), 400, "M_UNKNOWN_DEVICE")
		want(t, "the bot's", irc.act(s, "", "GET", "/account/whoami?device_id=PHONE", nil), 400, "M_UNKNOWN_DEVICE")
		irc.must(s, bob, "DELETE", "/devices/PHONE", map[string]any{})
		want(t, "a deleted one", irc.act(s, bob, "GET", "/account/whoami?device_id=PHONE", nil), 400, "M_UNKNOWN_DEVICE")
	})
}

// B435: what a bridge does is judged as what its user does, with the bridge.
func TestB435_NoHoleInThePolicy(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, database string) {
		irc, mute := newBridge(t, "irc"), newBridge(t, "mute") // nothing permits the bridge mute anything
		s := start(t, database, irc, mute)
		staff, lab := s.User("staff", "staff"), s.User("lab", "lab")
		bob := irc.ghost(s, "bob")
		want(t, "a bridge without an entry registers", s.Do("POST", "/register", mute.as, map[string]any{"type": "m.login.application_service", "username": "mute_x"}), 403, "M_FORBIDDEN")
		want(t, "a bridge without an entry acts", mute.act(s, "", "GET", "/account/whoami", nil), 403, "M_FORBIDDEN")
		want(t, "a bridge without an entry syncs", mute.act(s, "", "GET", "/sync", nil), 403, "M_FORBIDDEN")

		room := irc.must(s, bob, "POST", "/createRoom", map[string]any{"preset": "private_chat"}).String("room_id")
		invite := func(who *hstest.User) hstest.Answer {
			return irc.act(s, bob, "POST", "/rooms/"+hstest.Esc(room)+"/invite", map[string]any{"user_id": who.ID})
		}
		if a := invite(staff); a.Status != 200 {
			t.Fatalf("invite of staff: %d %s", a.Status, a.Raw)
		}
		a := invite(lab)
		want(t, "invite of the lab", a, 403, "M_FORBIDDEN")
		if a.String("org.hansa.decision_id") == "" {
			t.Errorf("no decision: %s", a.Raw)
		}
		want(t, "invite of the lab with the room", irc.act(s, bob, "POST", "/createRoom", map[string]any{"invite": []any{lab.ID}}), 403, "M_FORBIDDEN")
		want(t, "invite of the lab as state", irc.act(s, bob, "PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(lab.ID)),
			map[string]any{"membership": "invite"}), 403, "M_FORBIDDEN")
		want(t, "the bot's invite", irc.act(s, "", "POST", "/createRoom", map[string]any{"invite": []any{lab.ID}}), 403, "M_FORBIDDEN")
		// The other way round.
		closed := lab.CreateRoom(map[string]any{"preset": "public_chat"})
		want(t, "join of a room of the lab", irc.act(s, bob, "POST", "/join/"+hstest.Esc(closed), map[string]any{}), 403, "M_FORBIDDEN")
		want(t, "invite by the lab", lab.Try("POST", "/rooms/"+hstest.Esc(closed)+"/invite", map[string]any{"user_id": bob}), 403, "M_FORBIDDEN")
		want(t, "invite of a ghost that is not registered", lab.Try("POST", "/rooms/"+hstest.Esc(closed)+"/invite", map[string]any{"user_id": "@irc_new:acme.example"}), 403, "M_FORBIDDEN")
		ann := s.User("ann") // in no pool: she may meet other people, and no ghosts
		open := ann.CreateRoom(nil)
		for _, ghost := range []string{bob, "@irc_new:acme.example"} {
			want(t, "invite of "+ghost, ann.Try("POST", "/rooms/"+hstest.Esc(open)+"/invite", map[string]any{"user_id": ghost}), 403, "M_FORBIDDEN")
		}
		if a := irc.act(s, bob, "GET", "/rooms/"+hstest.Esc(closed)+"/messages?dir=b", nil); a.Status != 403 {
			t.Errorf("reads the room of the lab: %d %s", a.Status, a.Raw)
		}
		if a := irc.act(s, bob, "GET", "/profile/"+hstest.Esc(string(lab.ID)), nil); a.Status != 404 {
			t.Errorf("reads the profile of the lab: %d %s", a.Status, a.Raw)
		}
		// What staff says reaches the bridge; a change of policy closes it at once.
		staff.Join(room)
		if a := irc.say(s, bob, room, "hello"); a.Status != 200 {
			t.Fatalf("say: %d %s", a.Status, a.Raw)
		}
		s.WritePolicy("acme.example/bridges.yaml", "bridges:\n  irc: {points: [bridge.act, room.join], contact: [staff]}\n")
		s.ReloadPolicy()
		want(t, "send without the point", irc.say(s, bob, room, "again"), 403, "M_FORBIDDEN")
		s.WritePolicy("acme.example/bridges.yaml", "bridges:\n  irc: {points: [event.send], contact: [staff]}\n")
		s.ReloadPolicy()
		want(t, "act without the point", irc.say(s, bob, room, "again"), 403, "M_FORBIDDEN")
		// Rules of an admin see the bridge and the user.
		s.WritePolicy("acme.example/bridges.yaml", policies["acme.example/bridges.yaml"])
		s.WritePolicy("acme.example/quiet.rego", `package tenants["acme.example"].event.send

deny contains {"code": "quiet", "message": "quiet"} if {
	input.bridge.id == "irc"
	input.subject.id == "@irc_bob:acme.example"
	input.request.via == "appservice"
}
`)
		s.ReloadPolicy()
		a = irc.say(s, bob, room, "again")
		want(t, "a rule about the bridge", a, 403, "M_FORBIDDEN")
		if !strings.Contains(string(a.Raw), "quiet") {
			t.Errorf("not refused by the rule: %s", a.Raw)
		}
		irc.must(s, "", "GET", "/account/whoami", nil)
	})
}
