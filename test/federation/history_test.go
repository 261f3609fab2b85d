package federation_test

import (
	"strings"
	"testing"

	"hansa/test/hstest"
)

// past is a room's history visibility.
func past(u *hstest.User, room string) string {
	return u.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.history_visibility", nil).String("history_visibility")
}

// A partner that has our messages does not hand them to whom it lets in later: rooms with other servers do not show the past, whoever
// made them so, and where a partner opens the past of a room in which people of ours have the power, it is closed again.
func TestR345_PartnersDoNotHandOnThePast(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, f *hstest.Federation) {
		anna, bob, carl := f.Servers[0].User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		if v := past(anna, room); v != "shared" {
			t.Fatalf("alone, the room has %q", v)
		}
		bob.Must("POST", via(room, f.Servers[0]), object{})
		if v := past(anna, room); v != "invited" {
			t.Errorf("after the join of a partner's user the room has %q", v)
		}
		anna.Send(room, "canary for bob")
		bob.Until("anna's words", has(room, "canary for bob"))
		anna.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.power_levels", object{"users": object{string(bob.ID): 60}, "events": object{"m.room.history_visibility": 60}})
		bob.Until("bob's power", func(a hstest.Answer) bool {
			levels := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.power_levels", nil)
			return strings.Contains(string(levels.Raw), string(bob.ID))
		})
		if a := bob.Try("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.history_visibility", object{"history_visibility": "shared"}); a.Status != 403 {
			t.Errorf("setting it by our software: %d %s", a.Status, a.Raw)
		}
		carl.Must("POST", via(room, f.Servers[1]), object{})
		carl.Send(room, "carl is here")
		bob.Until("carl's words", has(room, "carl is here"))
		from := ""
		for range 10 {
			a := carl.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=50"+from, nil)
			if strings.Contains(string(a.Raw), "canary") {
				t.Fatal("the partner has handed our message to somebody who came later")
			}
			if from = a.String("end"); from == "" {
				break
			}
			from = "&from=" + hstest.Esc(from)
		}

		// A partner with other rules opens the past: it is closed again.
		f.Servers[1].WritePolicy("two.example/rooms.yaml", "rooms: {partner_history: [shared, invited, joined]}\n")
		f.Servers[1].ReloadPolicy()
		bob.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.history_visibility", object{"history_visibility": "shared"})
		anna.Until("the change", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"history_visibility":"shared"`) })
		for past(anna, room) != "invited" {
			anna.Until("the room's own", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"history_visibility":"invited"`) })
		}
		bob.Until("the partner to hear of it", func(hstest.Answer) bool { return past(bob, room) == "invited" })
	})
}

// An invitation of somebody of another server narrows the room before it goes out, and so does a new room that begins with one.
func TestR345_InvitationsOfOtherServers(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		if v := past(anna, anna.CreateRoom(object{"invite": []any{bob.ID}})); v != "invited" {
			t.Errorf("a new room with a partner has %q", v)
		}
		room := anna.CreateRoom(nil)
		anna.Invite(room, bob)
		if v := past(anna, room); v != "invited" {
			t.Errorf("after the invitation the room has %q", v)
		}
		bob.Until("the invitation", func(a hstest.Answer) bool { return a.Get("rooms", "invite", room) != nil })
		bob.Must("POST", via(room, f.Servers[0]), object{})
		bob.Send(room, "hello")
		anna.Until("bob's words", has(room, "hello"))
	})
}
