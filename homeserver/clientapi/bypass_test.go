package clientapi_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The people of these tests: anna and bob are ordinary users of acme, vera is in its closed pool, gina is a user of globex,
// with which there is no agreement. Anna may know neither vera nor gina.
type cast struct{ anna, bob, vera, gina *guest }

func newCast(h *house) *cast {
	return &cast{h.user("anna", acme), h.user("bob", acme), h.user("vera", acme, "vault"), h.user("gina", globex)}
}

// denied are those whom anna may not know.
func (c *cast) denied() []*guest { return []*guest{c.vera, c.gina} }

// eachDenied runs a test for each of those whom anna may not know.
func eachDenied(t *testing.T, fn func(t *testing.T, h *house, c *cast, b *guest)) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		c := newCast(h)
		for _, b := range c.denied() {
			fn(t, h, c, b)
		}
	})
}

// apart checks that somebody never came near a room.
func apart(t *testing.T, h *house, room string, b *guest) {
	t.Helper()
	if m := h.membershipIn(room, b.id); m != "" {
		t.Errorf("%s has the membership %q", b.id, m)
	}
}

func TestP269_Invite(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := c.anna.create(`{}`)
		refusedByPolicy(t, "invite", c.anna.do("POST", "/rooms/%s/invite", userID(b.id), id))
		apart(t, h, id, b)
	})
}

func TestP270_InviteInCreateRoom(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		before := h.roomCount()
		for _, preset := range []string{"private_chat", "trusted_private_chat", "public_chat"} {
			for _, version := range []string{"6", "11", "12"} {
				a := c.anna.do("POST", "/createRoom", map[string]any{"preset": preset, "room_version": version, "room_alias_name": "x", "visibility": "public",
					"invite": []string{string(c.bob.id), string(b.id)}})
				refusedByPolicy(t, preset, a)
			}
		}
		if n := h.roomCount(); n != before {
			t.Errorf("%d rooms were made", n-before)
		}
		want(t, "the alias", c.anna.do("GET", "/directory/room/%s", nil, "#x:acme.example"), 404, "M_NOT_FOUND")
	})
}

func TestP271_InviteAsState(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := c.anna.create(`{}`)
		refusedByPolicy(t, "state", c.anna.do("PUT", "/rooms/%s/state/m.room.member/%s", `{"membership":"invite"}`, id, b.id))
		apart(t, h, id, b)
		want(t, "initial_state", c.anna.do("POST", "/createRoom", map[string]any{"initial_state": []any{map[string]any{"type": "m.room.member", "state_key": b.id,
			"content": map[string]any{"membership": "invite"}}}}), 400, "M_INVALID_ROOM_STATE")
	})
}

// Nobody is invited by address here, so that nobody can become a member by an identity server's word.
func TestP273_InviteByAddress(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id := anna.create(`{}`)
		want(t, "invite", anna.do("POST", "/rooms/%s/invite", `{"id_server":"x","id_access_token":"y","medium":"email","address":"a@b"}`, id), 400, "M_SERVER_NOT_TRUSTED")
		want(t, "onbind", anna.do("PUT", "/_matrix/federation/v1/3pid/onbind", `{}`), 404, "M_UNRECOGNIZED")
	})
}

func TestP274_ExchangeThirdPartyInvite(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := c.anna.create(`{}`)
		want(t, "exchange", c.anna.do("PUT", "/_matrix/federation/v1/exchange_third_party_invite/%s", `{}`, id), 404, "M_UNRECOGNIZED")
		c.anna.ok("PUT", "/rooms/%s/state/m.room.third_party_invite/token", `{"display_name":"x","public_key":"","key_validity_url":""}`, id)
		a := c.anna.do("PUT", "/rooms/%s/state/m.room.member/%s", map[string]any{"membership": "invite",
			"third_party_invite": map[string]any{"display_name": "x", "signed": map[string]any{"mxid": b.id, "token": "token", "signatures": map[string]any{}}}}, id, b.id)
		refusedByPolicy(t, "invite with a token", a)
		apart(t, h, id, b)
	})
}

func TestP275_JoinARoomWithSomebodyInside(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := b.create(`{"preset":"public_chat"}`)
		refusedByPolicy(t, "join", c.anna.do("POST", "/rooms/%s/join", nil, id))
		apart(t, h, id, c.anna)
		// Who is invited counts as being inside.
		open := c.bob.create(`{"preset":"public_chat"}`)
		refusedByPolicy(t, "join", b.do("POST", "/join/%s", nil, open))
	})
}

// Hints about servers change nothing for a room that no tenant here is in: nothing is dialled, and the answer is the same.
func TestP277_ViaOtherServers(t *testing.T) {
	eachHouse(t, pools(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		plain := anna.do("POST", "/join/%s", nil, "!x:far.example")
		want(t, "join", plain, 403, "M_FORBIDDEN")
		for _, via := range []string{"via=far.example&via=globex.example", "server_name=far.example"} {
			if a := anna.do("POST", "/join/%s?"+via, nil, "!x:far.example"); a.raw != plain.raw || a.status != plain.status {
				t.Errorf("%s: %s, want %s", via, a, plain)
			}
			if a := anna.do("POST", "/knock/%s?"+via, nil, "!x:far.example"); a.raw != plain.raw || a.status != plain.status {
				t.Errorf("%s: %s, want %s", via, a, plain)
			}
		}
	})
}

func TestP278_ViaOneOfSeveral(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := b.create(`{"preset":"public_chat"}`)
		refusedByPolicy(t, "join", c.anna.do("POST", "/join/%s?via="+string(b.id.Server())+"&via=acme.example", nil, id))
		apart(t, h, id, c.anna)
	})
}

// An invitation from before a policy does not outlast it.
func TestP279_AcceptAnOldInvitation(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, gina := h.user("anna", acme), h.user("gina", globex)
		id := gina.create(map[string]any{"invite": []string{string(anna.id)}})
		other := gina.create(map[string]any{"invite": []string{string(anna.id)}})
		if err := os.WriteFile(filepath.Join(h.policy, "acme.example/partners.yaml"), []byte(`partners: {globex.example: {state: ended, pools: "*", features: "*"}}`+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		refusedByPolicy(t, "join", anna.do("POST", "/join/%s", nil, id))
		anna.ok("POST", "/rooms/%s/leave", nil, other)
	})
}

func TestP281_Knock(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		id := b.create(`{"initial_state":[{"type":"m.room.join_rules","content":{"join_rule":"knock"}}]}`)
		refusedByPolicy(t, "knock", c.anna.do("POST", "/knock/%s", `{"reason":"x"}`, id))
		refusedByPolicy(t, "as state", c.anna.do("PUT", "/rooms/%s/state/m.room.member/%s", `{"membership":"knock"}`, id, c.anna.id))
		apart(t, h, id, c.anna)
	})
}

// Membership of a space opens a room as far as its join rule goes, and no further.
func TestP282_RestrictedThroughASpace(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		space := c.anna.create(`{"preset":"public_chat","creation_content":{"type":"m.space"}}`)
		id := b.create(map[string]any{"initial_state": []any{map[string]any{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "restricted",
			"allow": []any{map[string]any{"type": "m.room_membership", "room_id": space}}}}}})
		refusedByPolicy(t, "join", c.anna.do("POST", "/join/%s", nil, id))
		apart(t, h, id, c.anna)
	})
}

// We vouch for nobody whom policy keeps out: no event that a server of ours signs for a join comes into being.
func TestP283_OurServerAsAuthoriser(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		space := b.create(`{"preset":"public_chat"}`)
		id := c.anna.create(map[string]any{"room_version": "10", "initial_state": []any{map[string]any{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "restricted",
			"allow": []any{map[string]any{"type": "m.room_membership", "room_id": space}}}}}})
		refusedByPolicy(t, "join", b.do("POST", "/join/%s", nil, id))
		refusedByPolicy(t, "with an authoriser of one's own", b.do("PUT", "/rooms/%s/state/m.room.member/%s",
			map[string]any{"membership": "join", "join_authorised_via_users_server": c.anna.id}, id, b.id))
		apart(t, h, id, b)
	})
}

// An upgrade takes nobody along against their policy: everybody comes on their own.
func TestP285_UpgradeInvitesNobody(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, gina := h.user("anna", acme), h.user("gina", globex)
		id := anna.create(map[string]any{"room_version": "10", "invite": []string{string(gina.id)}})
		gina.ok("POST", "/join/%s", nil, id)
		if err := os.Remove(filepath.Join(h.policy, "acme.example/partners.yaml")); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		a := anna.do("POST", "/rooms/%s/upgrade", `{"new_version":"12"}`, id)
		refusedByPolicy(t, "upgrade of a room that holds somebody out of reach", a)
		anna.ok("POST", "/rooms/%s/kick", userID(gina.id), id)
		next, _ := anna.ok("POST", "/rooms/%s/upgrade", `{"new_version":"12"}`, id).body["replacement_room"].(string)
		apart(t, h, next, gina)
		refusedByPolicy(t, "invite into the new room", anna.do("POST", "/rooms/%s/invite", userID(gina.id), next))
	})
}

// One whom policy refuses among many is not named: neither in the answer nor by what the others got.
func TestP329_OneDeniedOfMany(t *testing.T) {
	eachDenied(t, func(t *testing.T, h *house, c *cast, b *guest) {
		before := h.roomCount()
		list := []string{string(b.id)}
		for i := range 20 {
			list = append(list, fmt.Sprintf("@u%d:acme.example", i))
		}
		a := c.anna.do("POST", "/createRoom", map[string]any{"invite": list})
		refusedByPolicy(t, "createRoom", a)
		if strings.Contains(a.raw, string(b.id)) || strings.Contains(a.raw, b.id.Localpart()) {
			t.Errorf("the answer names the one who was refused: %s", a)
		}
		if n := h.roomCount(); n != before {
			t.Errorf("%d rooms were made", n-before)
		}
	})
}
