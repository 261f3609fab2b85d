package clientapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/storage"
)

// block makes somebody take no invitations.
func block(t testing.TB, h *house, g *guest) {
	t.Helper()
	err := h.db.Update(context.Background(), func(tx *storage.Tx) error {
		return tx.PutAccountData(storage.AccountData{UserID: g.id, Type: "m.invite_permission_config", Content: []byte(`{"default_action":"block"}`)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func userID(id matrix.UserID) map[string]any { return map[string]any{"user_id": id} }

func TestMembership_LifeOfAMember(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob, gina := h.user("anna", acme), h.user("bob", acme), h.user("gina", globex)
		id := anna.create(`{}`)
		is := func(what string, u *guest, membership string) {
			t.Helper()
			if got := h.membershipIn(id, u.id); got != membership {
				t.Errorf("%s: membership of %s is %q, want %q", what, u.id, got, membership)
			}
		}
		for _, u := range []*guest{bob, gina} {
			want(t, "join without invitation", u.do("POST", "/rooms/%s/join", nil, id), 403, "M_FORBIDDEN")
			anna.ok("POST", "/rooms/%s/invite", map[string]any{"user_id": u.id, "reason": "welcome"}, id)
			anna.ok("POST", "/rooms/%s/invite", userID(u.id), id)
			is("invited", u, "invite")
			if c := anna.stateOf(id, "m.room.member", string(u.id)).body; c["reason"] != "welcome" || c["displayname"] == nil {
				t.Errorf("invitation %v", c)
			}
			u.ok("POST", "/join/%s", `{"reason":"hello"}`, id)
			u.ok("POST", "/rooms/%s/join", "", id)
			is("joined", u, "join")
			want(t, "invite a member", anna.do("POST", "/rooms/%s/invite", userID(u.id), id), 403, "M_FORBIDDEN")
			want(t, "kick by an equal", u.do("POST", "/rooms/%s/kick", userID(anna.id), id), 403, "M_FORBIDDEN")
			want(t, "forget while inside", u.do("POST", "/rooms/%s/forget", nil, id), 400, "M_UNKNOWN")
			want(t, "unban who is not banned", anna.do("POST", "/rooms/%s/unban", userID(u.id), id), 403, "M_FORBIDDEN")
			anna.ok("POST", "/rooms/%s/kick", map[string]any{"user_id": u.id, "reason": "out"}, id)
			is("kicked", u, "leave")
			want(t, "kick who is not there", anna.do("POST", "/rooms/%s/kick", userID(u.id), id), 403, "M_FORBIDDEN")
			anna.ok("POST", "/rooms/%s/ban", userID(u.id), id)
			anna.ok("POST", "/rooms/%s/ban", userID(u.id), id)
			is("banned", u, "ban")
			want(t, "invite who is banned", anna.do("POST", "/rooms/%s/invite", userID(u.id), id), 403, "M_FORBIDDEN")
			want(t, "join while banned", u.do("POST", "/rooms/%s/join", nil, id), 403, "M_FORBIDDEN")
			u.ok("POST", "/rooms/%s/forget", nil, id)
			u.ok("POST", "/rooms/%s/forget", nil, id)
			anna.ok("POST", "/rooms/%s/unban", userID(u.id), id)
			is("unbanned", u, "leave")
			anna.ok("POST", "/rooms/%s/invite", userID(u.id), id)
			u.ok("POST", "/rooms/%s/leave", `{"reason":"no"}`, id)
			u.ok("POST", "/rooms/%s/leave", `{}`, id)
			is("refused", u, "leave")
		}
	})
}

// A membership that is written as state goes the way of the endpoint that is made for it.
func TestMembership_AsState(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		id := anna.create(`{}`)
		put := func(g *guest, u *guest, body string) answer {
			return g.do("PUT", "/rooms/%s/state/m.room.member/%s", body, id, u.id)
		}
		if a := put(anna, bob, `{"membership":"invite","displayname":"B"}`); a.status != 200 || a.eventID() == "" {
			t.Fatalf("invite: %s", a)
		}
		if c := anna.stateOf(id, "m.room.member", string(bob.id)).body; c["displayname"] != "B" {
			t.Errorf("invitation %v", c)
		}
		want(t, "join for another", put(anna, bob, `{"membership":"join"}`), 403, "M_FORBIDDEN")
		if a := put(bob, bob, `{"membership":"join","join_authorised_via_users_server":"@anna:acme.example"}`); a.status != 200 {
			t.Fatalf("join: %s", a)
		}
		bob.ok("PUT", "/profile/%s/displayname", `{"displayname":"Robert"}`, bob.id) // what comes of a profile later would take the name away again
		h.until("the new name is in the room", func() bool { return anna.stateOf(id, "m.room.member", string(bob.id)).body["displayname"] == "Robert" })
		put(bob, bob, `{"membership":"join","displayname":"Bobby","x.own":1}`)
		if c := anna.stateOf(id, "m.room.member", string(bob.id)).body; c["displayname"] != "Bobby" || c["x.own"] != 1.0 || c["join_authorised_via_users_server"] != nil {
			t.Errorf("member %v", c)
		}
		want(t, "no membership", put(bob, bob, `{}`), 400, "M_BAD_JSON")
		want(t, "membership is a list", put(bob, bob, `{"membership":[]}`), 400, "M_BAD_JSON")
		want(t, "membership unknown", put(bob, bob, `{"membership":"boss"}`), 400, "M_BAD_JSON")
		want(t, "key is no user", anna.do("PUT", "/rooms/%s/state/m.room.member/x", `{"membership":"join"}`, id), 400, "M_INVALID_PARAM")
		for _, m := range []string{"ban", "leave"} {
			if a := put(anna, bob, `{"membership":"`+m+`"}`); a.status != 200 || h.membershipIn(id, bob.id) != m {
				t.Errorf("%s: %s", m, a)
			}
		}
	})
}

func TestMembership_Knock(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		closed := anna.create(`{}`)
		want(t, "knock where nobody may", bob.do("POST", "/knock/%s", nil, closed), 403, "M_FORBIDDEN")
		old := anna.create(`{"room_version":"6","initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
		want(t, "knock in a version without", bob.do("POST", "/knock/%s", nil, old), 403, "M_FORBIDDEN")
		id := anna.create(`{"initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
		bob.ok("POST", "/knock/%s", `{"reason":"please"}`, id)
		bob.ok("POST", "/knock/%s", `{}`, id)
		if c := anna.stateOf(id, "m.room.member", string(bob.id)).body; c["membership"] != "knock" || c["reason"] != "please" {
			t.Errorf("knock %v", c)
		}
		bob.ok("POST", "/rooms/%s/leave", nil, id)
		bob.ok("POST", "/knock/%s", nil, id)
		anna.ok("POST", "/rooms/%s/invite", userID(bob.id), id)
		want(t, "knock when invited", bob.do("POST", "/knock/%s", nil, id), 403, "M_FORBIDDEN")
		bob.ok("POST", "/join/%s", nil, id)
	})
}

func TestMembership_Restricted(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob, gina := h.user("anna", acme), h.user("bob", acme), h.user("gina", globex)
		space := anna.create(`{"preset":"public_chat","creation_content":{"type":"m.space"}}`)
		rule := func(name, version string, rooms ...string) map[string]any {
			allow := []any{map[string]any{"type": "x.unknown"}, "x"}
			for _, r := range rooms {
				allow = append(allow, map[string]any{"type": "m.room_membership", "room_id": r})
			}
			return map[string]any{"room_version": version, "initial_state": []any{map[string]any{"type": "m.room.join_rules", "content": map[string]any{"join_rule": name, "allow": allow}}}}
		}
		for _, v := range []string{"8", "9", "10", "11", "12"} {
			name := map[bool]string{true: "restricted", false: "knock_restricted"}[v < "9" && len(v) == 1 || v == "9"]
			id := anna.create(rule(name, v, space, "!unknown:acme.example"))
			for _, u := range []*guest{bob, gina} {
				want(t, "outside of the space", u.do("POST", "/join/%s", nil, id), 403, "M_FORBIDDEN")
				u.ok("POST", "/join/%s", nil, space)
				u.ok("POST", "/join/%s", nil, id)
				c := anna.stateOf(id, "m.room.member", string(u.id)).body
				if c["join_authorised_via_users_server"] != string(anna.id) {
					t.Errorf("version %s: member %v", v, c)
				}
				u.ok("POST", "/rooms/%s/leave", nil, space)
			}
		}
		old := anna.create(rule("restricted", "7", space))
		bob.ok("POST", "/join/%s", nil, space)
		want(t, "restricted in version 7", bob.do("POST", "/join/%s", nil, old), 403, "M_FORBIDDEN")
		far := anna.create(rule("restricted", "11", "!unknown:acme.example"))
		want(t, "condition room unknown", bob.do("POST", "/join/%s", nil, far), 400, "M_UNABLE_TO_AUTHORISE_JOIN")
		high := rule("restricted", "11", space)
		high["power_level_content_override"] = map[string]any{"invite": 101}
		lone := anna.create(high)
		want(t, "nobody may invite", bob.do("POST", "/join/%s", nil, lone), 400, "M_UNABLE_TO_GRANT_JOIN")
	})
}

// Who is not in a room gets the same answers whether it exists or not.
func TestMembership_StrangersLearnNothing(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob, eve := h.user("anna", acme), h.user("bob", acme), h.user("eve", acme)
		id := anna.create(map[string]any{"room_version": "12", "invite": []string{string(bob.id)}})
		sent := anna.ok("PUT", "/rooms/%s/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`, id).eventID()
		absent := "!" + strings.Repeat("a", 43)
		for _, c := range []struct{ method, path, body string }{
			{"PUT", "/rooms/%s/send/m.room.message/t", `{"msgtype":"m.text","body":"x"}`},
			{"PUT", "/rooms/%s/send/m.room.redaction/t", `{"redacts":"` + sent + `"}`},
			{"PUT", "/rooms/%s/redact/" + sent + "/t", `{}`},
			{"PUT", "/rooms/%s/state/m.room.name", `{"name":"x"}`},
			{"PUT", "/rooms/%s/state/m.room.canonical_alias", `{"alias":"#x:acme.example"}`},
			{"PUT", "/rooms/%s/state/m.room.member/@bob:acme.example", `{"membership":"ban"}`},
			{"PUT", "/rooms/%s/state/m.room.member/@bob:acme.example", `{"membership":"join"}`},
			{"PUT", "/rooms/%s/state/m.room.member/@eve:acme.example", `{"membership":"join"}`},
			{"POST", "/rooms/%s/invite", `{"user_id":"@bob:acme.example"}`},
			{"POST", "/rooms/%s/kick", `{"user_id":"@bob:acme.example"}`},
			{"POST", "/rooms/%s/ban", `{"user_id":"@bob:acme.example"}`},
			{"POST", "/rooms/%s/unban", `{"user_id":"@bob:acme.example"}`},
			{"POST", "/rooms/%s/join", ""}, {"POST", "/join/%s", ""}, {"POST", "/knock/%s", ""},
			{"POST", "/rooms/%s/leave", ""}, {"POST", "/rooms/%s/forget", ""}, {"POST", "/rooms/%s/upgrade", `{"new_version":"11"}`},
			{"GET", "/rooms/%s/state", ""}, {"GET", "/rooms/%s/state/m.room.create", ""}, {"GET", "/rooms/%s/members", ""},
			{"GET", "/rooms/%s/joined_members", ""}, {"GET", "/rooms/%s/aliases", ""},
			{"PUT", "/directory/list/room/%s", `{}`}, {"GET", "/directory/list/room/%s", ""},
			{"PUT", "/directory/room/%%23x:acme.example", `{"room_id":"%s"}`},
		} {
			ask := func(room string) answer {
				if strings.Contains(c.body, "%s") {
					return eve.do(c.method, c.path, fmt.Sprintf(c.body, room))
				}
				return eve.do(c.method, c.path, c.body, room)
			}
			there, missing := ask(id), ask(absent)
			if there.status != missing.status || strings.ReplaceAll(there.raw, id, absent) != missing.raw || there.status < 403 || there.status > 404 {
				t.Errorf("%s %s: %s for a room that exists, %s for one that does not", c.method, c.path, there, missing)
			}
		}
	})
}

func TestC189_InviteSpam(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "sqlite", friends(), true)
	anna := h.user("anna", acme)
	id := anna.create(`{}`)
	limited := 0
	for i := range 260 {
		a := anna.do("POST", "/rooms/%s/invite", userID(matrix.UserID(fmt.Sprintf("@u%d:acme.example", i))), id)
		if a.status == 429 {
			limited++
			if a.code() != "M_LIMIT_EXCEEDED" || a.body["retry_after_ms"] == nil {
				t.Fatalf("answer %s", a)
			}
		}
	}
	if limited == 0 {
		t.Error("260 invitations at once were let through")
	}
	var list []string
	for i := range 300 {
		list = append(list, fmt.Sprintf("@v%d:acme.example", i))
	}
	want(t, "in createRoom", anna.do("POST", "/createRoom", map[string]any{"invite": list}), 429, "M_LIMIT_EXCEEDED")
}

func TestC189_InviteBlocked(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, gina := h.user("anna", acme), h.user("gina", globex)
		id := anna.create(`{}`)
		block(t, h, gina)
		want(t, "invite", anna.do("POST", "/rooms/%s/invite", userID(gina.id), id), 403, "M_INVITE_BLOCKED")
		want(t, "createRoom", anna.do("POST", "/createRoom", map[string]any{"invite": []string{string(gina.id)}}), 403, "M_INVITE_BLOCKED")
		want(t, "state", anna.do("PUT", "/rooms/%s/state/m.room.member/%s", `{"membership":"invite"}`, id, gina.id), 403, "M_INVITE_BLOCKED")
	})
}

// Whoever may not know of somebody is not told either that they take no invitations.
func TestC189_InviteBlockedIsToldToFriendsOnly(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		anna, vera := h.user("anna", acme), h.user("vera", acme, "vault")
		id := anna.create(`{}`)
		before := anna.do("POST", "/rooms/%s/invite", userID(vera.id), id)
		block(t, h, vera)
		after := anna.do("POST", "/rooms/%s/invite", userID(vera.id), id)
		refusedByPolicy(t, "before", before)
		refusedByPolicy(t, "after", after)
		if before.text() != after.text() {
			t.Errorf("the answers differ: %s, %s", before, after)
		}
	})
}

func TestMembership_ProfileFollowsIntoRooms(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		a, b := anna.create(`{"preset":"public_chat"}`), anna.create(`{"preset":"public_chat"}`)
		for _, id := range []string{a, b} {
			bob.ok("POST", "/join/%s", nil, id)
		}
		bob.ok("POST", "/rooms/%s/leave", nil, b)
		bob.ok("PUT", "/profile/%s/displayname", `{"displayname":"Robert"}`, bob.id)
		h.until("the new name is in the room", func() bool { return anna.stateOf(a, "m.room.member", string(bob.id)).body["displayname"] == "Robert" })
		if c := anna.stateOf(b, "m.room.member", string(bob.id)).body; c["membership"] != "leave" {
			t.Errorf("a new name brought bob back: %v", c)
		}
		h.restart()
		bob.ok("DELETE", "/profile/%s/displayname", nil, bob.id)
		h.until("no name is in the room", func() bool { return anna.stateOf(a, "m.room.member", string(bob.id)).body["displayname"] == nil })
		if c := anna.stateOf(a, "m.room.member", string(bob.id)).body; c["membership"] != "join" {
			t.Errorf("member %v", c)
		}
	})
}
