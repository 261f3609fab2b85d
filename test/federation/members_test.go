package federation_test

import (
	"net/url"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/test/hstest"
)

// invited waits for an invitation and returns the state that comes with it.
func invited(u *hstest.User, room string) []any {
	var state []any
	u.Until("the invitation into "+room, func(a hstest.Answer) bool {
		list, ok := a.Get("rooms", "invite", room, "invite_state", "events").([]any)
		state = list
		return ok
	})
	return state
}

func left(room string) func(hstest.Answer) bool {
	return func(a hstest.Answer) bool { return a.Get("rooms", "leave", room) != nil }
}

// An invitation to another server: shown with what the room is, accepted, and another one rejected.
func TestInvite(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		for _, v := range versions(t) {
			room := anna.CreateRoom(map[string]any{"preset": "private_chat", "room_version": v, "name": "Private " + v})
			anna.Invite(room, bob)
			if state := invited(bob, room); len(state) < 3 {
				t.Errorf("version %s: the invitation comes with %v", v, state)
			}
			bob.Must("POST", "/join/"+hstest.Esc(room), map[string]any{})
			bob.Send(room, "thanks "+v)
			anna.Until("bob's words in version "+v, has(room, "thanks "+v))
			// Rejected.
			other := anna.CreateRoom(map[string]any{"preset": "private_chat", "room_version": v})
			anna.Invite(other, bob)
			invited(bob, other)
			bob.Must("POST", "/rooms/"+hstest.Esc(other)+"/leave", map[string]any{})
			anna.Until("the rejection in version "+v, membership(other, bob.ID, "leave"))
		}
	})
}

// An invitation that comes with the room, and one that is taken back.
func TestInvite_AtCreationAndTakenBack(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		room := anna.CreateRoom(map[string]any{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{string(bob.ID)}})
		invited(bob, room)
		bob.Must("POST", "/join/"+hstest.Esc(room), map[string]any{})
		anna.Until("bob's coming", membership(room, bob.ID, "join"))
		other := anna.CreateRoom(map[string]any{"preset": "private_chat"})
		anna.Invite(other, bob)
		invited(bob, other)
		anna.Must("POST", "/rooms/"+hstest.Esc(other)+"/kick", map[string]any{"user_id": bob.ID})
		bob.Until("the invitation to be gone", left(other))
		if a := bob.Try("POST", via(other, f.Servers[0]), map[string]any{}); a.Status != 403 {
			t.Errorf("join after the invitation was taken back: %d %s", a.Status, a.Raw)
		}
	})
}

func TestKnock(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		for _, id := range versions(t) {
			v, _ := matrix.FindRoomVersion(id)
			if !v.Knock {
				continue
			}
			room := anna.CreateRoom(map[string]any{"preset": "private_chat", "room_version": id, "initial_state": []any{
				map[string]any{"type": "m.room.join_rules", "state_key": "", "content": map[string]any{"join_rule": "knock"}}}})
			bob.Must("POST", "/knock/"+hstest.Esc(room)+"?via="+url.QueryEscape("one.example"), map[string]any{"reason": "please"})
			bob.Until("the knock to show", func(a hstest.Answer) bool { return a.Get("rooms", "knock", room) != nil })
			anna.Until("the knock", membership(room, bob.ID, "knock"))
			anna.Invite(room, bob)
			invited(bob, room)
			bob.Must("POST", "/join/"+hstest.Esc(room), map[string]any{})
			bob.Send(room, "in "+id)
			anna.Until("bob's words in version "+id, has(room, "in "+id))
		}
	})
}

// A restricted room: whoever is in the other room may come in, by the signature of the server that lets in.
func TestRestrictedJoin(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob, eve := f.Servers[0].User("anna"), f.Servers[1].User("bob"), f.Servers[1].User("eve")
		for _, id := range versions(t) {
			v, _ := matrix.FindRoomVersion(id)
			if !v.Restricted {
				continue
			}
			club := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": id})
			room := anna.CreateRoom(map[string]any{"preset": "private_chat", "room_version": id, "initial_state": []any{
				map[string]any{"type": "m.room.join_rules", "state_key": "", "content": map[string]any{"join_rule": "restricted",
					"allow": []any{map[string]any{"type": "m.room_membership", "room_id": club}}}}}})
			bob.Must("POST", via(club, f.Servers[0]), map[string]any{})
			bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
			bob.Send(room, "let in "+id)
			anna.Until("bob's words in version "+id, has(room, "let in "+id))
			if a := eve.Try("POST", via(room, f.Servers[0]), map[string]any{}); a.Status != 403 {
				t.Errorf("version %s: join of somebody who is not in the other room: %d %s", id, a.Status, a.Raw)
			}
		}
	})
}

// Kicks, bans and power across servers.
func TestModeration(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
		bob.Sync(0) // a first sync does not tell of rooms that were left before
		anna.Must("POST", "/rooms/"+hstest.Esc(room)+"/kick", map[string]any{"user_id": bob.ID, "reason": "out"})
		bob.Until("the kick", left(room))
		bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
		bob.Send(room, "again")
		anna.Until("bob's words", has(room, "again"))
		anna.Must("POST", "/rooms/"+hstest.Esc(room)+"/ban", map[string]any{"user_id": bob.ID})
		bob.Until("the ban", left(room))
		if a := bob.Try("POST", via(room, f.Servers[0]), map[string]any{}); a.Status != 403 {
			t.Errorf("join of somebody banned: %d %s", a.Status, a.Raw)
		}
		anna.Must("POST", "/rooms/"+hstest.Esc(room)+"/unban", map[string]any{"user_id": bob.ID})
		deadline := time.Now().Add(time.Minute)
		for a := bob.Try("POST", via(room, f.Servers[0]), map[string]any{}); a.Status != 200; a = bob.Try("POST", via(room, f.Servers[0]), map[string]any{}) {
			if time.Now().After(deadline) {
				t.Fatalf("join after the ban was lifted: %d %s", a.Status, a.Raw)
			}
		}
	})
}

// Three servers: the third comes in by way of the second, everybody hears everybody, and who leaves hears no more.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, f *hstest.Federation) {
		anna, bob, carl := f.Servers[0].User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
		carl.Must("POST", via(room, f.Servers[1]), map[string]any{})
		all := []*hstest.User{anna, bob, carl}
		for _, u := range all {
			if u != carl {
				u.Until("carl's coming", membership(room, carl.ID, "join"))
			}
		}
		for _, from := range all {
			from.Send(room, "hello from "+string(from.ID))
			for _, to := range all {
				if to != from {
					to.Until("words of "+string(from.ID), has(room, "hello from "+string(from.ID)))
				}
			}
		}
		bob.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
		carl.Until("bob's leaving", membership(room, bob.ID, "leave"))
		anna.Until("bob's leaving", membership(room, bob.ID, "leave"))
		carl.Send(room, "without bob")
		anna.Until("carl's words", has(room, "without bob"))
	})
}
