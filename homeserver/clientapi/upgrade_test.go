package clientapi_test

import (
	"context"
	"testing"

	"hansa/matrix"
	"hansa/storage"
)

func TestUpgrade_TakesTheRoomAlong(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob, carl := h.user("anna", acme), h.user("bob", acme), h.user("carl", acme)
		id := anna.create(map[string]any{"room_version": "6", "room_alias_name": "pub", "visibility": "public", "preset": "public_chat", "name": "N", "topic": "T",
			"creation_content":             map[string]any{"type": "m.space"},
			"power_level_content_override": map[string]any{"users": map[string]any{string(anna.id): 100, string(bob.id): 60}},
			"initial_state":                []any{map[string]any{"type": "m.space.child", "state_key": "!c:acme.example", "content": map[string]any{"via": []string{"acme.example"}}}}})
		bob.ok("POST", "/join/%s", nil, id)
		anna.ok("POST", "/rooms/%s/ban", userID(carl.id), id)
		want(t, "upgrade without power", bob.do("POST", "/rooms/%s/upgrade", `{"new_version":"12"}`, id), 403, "M_FORBIDDEN")
		want(t, "upgrade to nothing", anna.do("POST", "/rooms/%s/upgrade", `{}`, id), 400, "M_MISSING_PARAM")
		want(t, "bad creators", anna.do("POST", "/rooms/%s/upgrade", `{"new_version":"12","additional_creators":["x"]}`, id), 400, "M_INVALID_PARAM")
		next, _ := anna.ok("POST", "/rooms/%s/upgrade", map[string]any{"new_version": "12", "additional_creators": []string{string(bob.id)}}, id).body["replacement_room"].(string)

		get := func(room, typ, key string) map[string]any { return anna.stateOf(room, typ, key).body }
		create, power := get(next, "m.room.create", ""), get(next, "m.room.power_levels", "")
		before, _ := create["predecessor"].(map[string]any)
		creators, _ := create["additional_creators"].([]any)
		if create["room_version"] != "12" || create["type"] != "m.space" || before["room_id"] != id || len(creators) != 1 {
			t.Errorf("create event %v", create)
		}
		if users, _ := power["users"].(map[string]any); len(users) != 0 {
			t.Errorf("creators have levels: %v", power)
		}
		if events, _ := power["events"].(map[string]any); events["m.room.tombstone"] != 100.0 {
			t.Errorf("levels %v", power)
		}
		if get(next, "m.room.name", "")["name"] != "N" || get(next, "m.room.topic", "")["topic"] != "T" || get(next, "m.room.join_rules", "")["join_rule"] != "public" ||
			get(next, "m.space.child", "!c:acme.example")["via"] == nil || get(next, "m.room.member", string(carl.id))["membership"] != "ban" {
			t.Error("the new room lacks state of the old one")
		}
		if got := get(id, "m.room.tombstone", "")["replacement_room"]; got != next {
			t.Errorf("tombstone names %v", got)
		}
		if p := get(id, "m.room.power_levels", ""); p["events_default"] != 50.0 || p["invite"] != 50.0 {
			t.Errorf("levels of the old room %v", p)
		}
		if a := anna.ok("GET", "/directory/room/%s", nil, "#pub:acme.example"); a.body["room_id"] != next {
			t.Errorf("the alias leads to %v", a.body["room_id"])
		}
		if get(next, "m.room.canonical_alias", "")["alias"] != "#pub:acme.example" || get(id, "m.room.canonical_alias", "")["alias"] != nil {
			t.Error("the canonical alias did not move")
		}
		list, _ := anna.ok("GET", "/publicRooms", nil).body["chunk"].([]any)
		if len(list) != 1 || list[0].(map[string]any)["room_id"] != next {
			t.Errorf("published are %v", list)
		}
		want(t, "write into the old room", bob.do("PUT", "/rooms/%s/send/x.y/1", `{}`, id), 200, "")
		want(t, "come as one who is banned", carl.do("POST", "/join/%s", nil, next), 403, "M_FORBIDDEN")
		bob.ok("POST", "/join/%s", nil, next)
	})
}

// From every version to every other one, by somebody whose level is not enough for all that the room takes along.
func TestUpgrade_BetweenVersions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "sqlite", friends(), false)
	anna, bob := h.user("anna", acme), h.user("bob", acme)
	for _, from := range []string{"1", "5", "9", "11", "12"} {
		for _, to := range []string{"2", "7", "10", "11", "12"} {
			users := map[string]any{string(bob.id): 60, string(anna.id): 100}
			if from == "12" {
				delete(users, string(anna.id))
			}
			id := anna.create(map[string]any{"room_version": from, "name": "N", "preset": "public_chat", "power_level_content_override": map[string]any{
				"users": users, "events": map[string]any{"m.room.tombstone": 55, "m.room.name": 90}}})
			bob.ok("POST", "/join/%s", nil, id)
			next, _ := bob.ok("POST", "/rooms/%s/upgrade", map[string]any{"new_version": to}, id).body["replacement_room"].(string)
			users, _ = bob.stateOf(next, "m.room.power_levels", "").body["users"].(map[string]any)
			if to == "12" && users[string(bob.id)] != nil || to != "12" && users[string(bob.id)] != 60.0 || bob.stateOf(next, "m.room.name", "").body["name"] != "N" {
				t.Errorf("%s to %s: users %v", from, to, users)
			}
		}
	}
}

// A room that claims to replace another one inherits nothing, as long as the other one does not say so itself.
func TestA74_FakeUpgrade(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, eve := h.user("anna", acme), h.user("eve", acme)
		real := anna.create(`{"preset":"public_chat"}`)
		set := func(room string) {
			err := h.db.Update(context.Background(), func(tx *storage.Tx) error {
				if err := tx.PutAccountData(storage.AccountData{UserID: anna.id, RoomID: matrix.RoomID(room), Type: "m.tag", Content: []byte(`{"tags":{"m.favourite":{}}}`)}); err != nil {
					return err
				}
				return tx.PutAccountData(storage.AccountData{UserID: anna.id, Type: "m.direct", Content: []byte(`{"@eve:acme.example":["` + room + `"]}`)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		has := func(room string) (found bool) {
			err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
				list, err := tx.LoadAccountData(anna.id, 0, 1<<60)
				for _, d := range list {
					found = found || d.RoomID == matrix.RoomID(room)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		set(real)
		eve.ok("POST", "/join/%s", nil, real)
		want(t, "tombstone by a low level", eve.do("PUT", "/rooms/%s/state/m.room.tombstone", `{"replacement_room":"!x:acme.example","body":"x"}`, real), 403, "M_FORBIDDEN")
		fake := eve.create(map[string]any{"preset": "public_chat", "creation_content": map[string]any{"predecessor": map[string]any{"room_id": real, "event_id": "$x"}}})
		if m := h.membershipIn(fake, anna.id); m != "" {
			t.Errorf("anna has the membership %q", m)
		}
		anna.ok("POST", "/join/%s", nil, fake)
		if has(fake) {
			t.Error("the fake room inherited the tags")
		}
		next, _ := anna.ok("POST", "/rooms/%s/upgrade", `{"new_version":"11"}`, real).body["replacement_room"].(string)
		anna.ok("POST", "/rooms/%s/leave", nil, next)
		anna.ok("PUT", "/rooms/%s/state/m.room.member/%s", `{"membership":"join"}`, next, anna.id)
		if !has(next) {
			t.Error("the real successor did not inherit the tags")
		}
	})
}
