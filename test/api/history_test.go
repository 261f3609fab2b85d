package api

import (
	"strings"
	"testing"

	"hansa/test/hstest"
)

// partnerPolicy makes partners of the two tenants, for everybody and everything.
func partnerPolicy(more string) map[string]string {
	return map[string]string{
		"acme.example/partners.yaml":   `partners: {globex.example: {pools: "*", features: "*"}}` + "\n" + more,
		"globex.example/partners.yaml": `partners: {acme.example: {pools: "*", features: "*"}}` + "\n",
	}
}

// past is a room's history visibility.
func past(u *hstest.User, room string) string {
	return u.Must("GET", at(room)+"/state/m.room.history_visibility", nil).String("history_visibility")
}

// history is a wish for a room's history visibility.
func history(v string) []any {
	return []any{object{"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": v}}}
}

// Rooms with people of several organisations do not show newcomers the past: not from the beginning, not when the first partner comes in
// later, and nobody can change it back. In rooms of one organisation nothing is forced.
func TestR345_RoomsWithPartnersHideTheirPast(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: partnerPolicy("")}, func(t *testing.T, s *hstest.Server) {
		anna, ben, gus := s.User("anna"), s.User("ben"), s.User("@gus:globex.example")
		own := anna.CreateRoom(object{"invite": []any{ben.ID}, "initial_state": history("shared")})
		if v := past(anna, own); v != "shared" {
			t.Errorf("a room of one organisation has %q", v)
		}
		for _, wish := range []string{"shared", "world_readable", "everybody"} {
			a := anna.Try("POST", "/createRoom", object{"invite": []any{gus.ID}, "initial_state": history(wish)})
			if wish != "shared" { // a tenant has to allow these at all
				if a.Status != 403 {
					t.Errorf("createRoom with %s: %d %s", wish, a.Status, a.Raw)
				}
				continue
			}
			if v := past(anna, a.String("room_id")); v != "invited" {
				t.Errorf("a new room with a partner, asked for as %s, has %q", wish, v)
			}
		}
		if v := past(anna, anna.CreateRoom(object{"invite": []any{gus.ID}, "initial_state": history("joined")})); v != "joined" {
			t.Errorf("a stricter wish became %q", v)
		}

		// Invited later, by somebody who may not change it: it is changed in the name of somebody who may.
		ben.Join(own)
		anna.Send(own, "early")
		ben.Invite(own, gus)
		if v := past(anna, own); v != "invited" {
			t.Errorf("after the invitation of a partner the room has %q", v)
		}
		gus.Join(own)
		for _, wish := range []string{"shared", "world_readable", "", "everybody"} {
			a := anna.Try("PUT", at(own)+"/state/m.room.history_visibility", object{"history_visibility": wish})
			if a.Status != 403 || a.Code() != "M_FORBIDDEN" {
				t.Errorf("setting %q: %d %s", wish, a.Status, a.Raw)
			}
			if wish == "shared" && !strings.Contains(string(a.Raw), "history_visibility") {
				t.Errorf("the refusal does not say why: %s", a.Raw)
			}
		}
		anna.Must("PUT", at(own)+"/state/m.room.history_visibility", object{"history_visibility": "joined"})
		anna.Must("PUT", at(own)+"/state/m.room.history_visibility", object{"history_visibility": "invited"})
		late := anna.Send(own, "late")
		gil := s.User("@gil:globex.example")
		anna.Invite(own, gil)
		gil.Join(own)
		if a := gil.Try("GET", at(own)+"/event/"+hstest.Esc(late), nil); a.Status != 404 {
			t.Errorf("a newcomer reads what was said before: %d %s", a.Status, a.Raw)
		}
		if a := gus.Try("GET", at(own)+"/event/"+hstest.Esc(late), nil); a.Status != 200 {
			t.Errorf("somebody who was there reads %d %s", a.Status, a.Raw)
		}

		// Somebody comes into an open room by themselves.
		open := anna.CreateRoom(object{"preset": "public_chat"})
		if v := past(anna, open); v != "shared" {
			t.Errorf("a public room has %q", v)
		}
		gus.Join(open)
		if v := past(anna, open); v != "invited" {
			t.Errorf("after a partner has come in the room has %q", v)
		}
		gus.Must("PUT", "/profile/"+hstest.Esc(string(gus.ID))+"/displayname", object{"displayname": "Gus"})
	})
}

// Where nobody is in the room who may change what it shows, no partner comes in; the answer says what has to be done.
func TestR345_NobodyMayChangeThePast(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: partnerPolicy("")}, func(t *testing.T, s *hstest.Server) {
		anna, gus := s.User("anna"), s.User("@gus:globex.example")
		room := anna.CreateRoom(object{"room_version": "11"})
		anna.Must("PUT", at(room)+"/state/m.room.power_levels", object{"users": object{string(anna.ID): 60}, "events": object{"m.room.history_visibility": 100}})
		a := anna.Try("POST", at(room)+"/invite", object{"user_id": gus.ID})
		if a.Status != 403 || !strings.Contains(string(a.Raw), "past") {
			t.Errorf("invitation: %d %s", a.Status, a.Raw)
		}
		if a := gus.Sync(0); a.Get("rooms", "invite", room) != nil {
			t.Error("the partner is invited all the same")
		}
	})
}

// A tenant that wants it otherwise says so; the operator and the other tenants can still narrow it.
func TestR345_PartnersMayBeShownThePast(t *testing.T) {
	t.Parallel()
	policy := partnerPolicy("rooms: {partner_history: [shared, invited, joined]}\n")
	each(t, hstest.Options{Policy: policy}, func(t *testing.T, s *hstest.Server) {
		anna, gus := s.User("anna"), s.User("@gus:globex.example")
		room := anna.CreateRoom(object{"invite": []any{gus.ID}})
		if v := past(anna, room); v != "shared" {
			t.Errorf("the room has %q", v)
		}
		gus.Join(room)
		if a := gus.Try("PUT", at(room)+"/state/m.room.history_visibility", object{"history_visibility": "shared"}); a.Status != 403 {
			t.Errorf("the other tenant's user sets it: %d %s", a.Status, a.Raw)
		}
		s.WritePolicy("operator/rooms.yaml", "rooms: {partner_history: [joined]}\n")
		s.ReloadPolicy()
		room = anna.CreateRoom(object{"invite": []any{gus.ID}})
		if v := past(anna, room); v != "joined" {
			t.Errorf("with a stricter operator the room has %q", v)
		}
		s.WritePolicy("operator/rooms.yaml", "rooms: {partner_history: []}\n")
		s.ReloadPolicy()
		if a := anna.Try("POST", "/createRoom", object{"invite": []any{gus.ID}}); a.Status != 403 {
			t.Errorf("with an operator who allows nothing: %d %s", a.Status, a.Raw)
		}
	})
}
