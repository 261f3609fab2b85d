package clientapi_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/storage"
)

func TestCreateRoom_Presets(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		for _, version := range matrix.RoomVersions() {
			for preset, rule := range map[string]string{"private_chat": "invite", "trusted_private_chat": "invite", "public_chat": "public"} {
				id := anna.create(map[string]any{"preset": preset, "room_version": version, "name": "N", "topic": "T", "invite": []string{string(bob.id)}, "is_direct": true,
					"creation_content": map[string]any{"creator": "@evil:x", "room_version": "1", "type": "m.custom"},
					"initial_state":    []any{map[string]any{"type": "m.room.guest_access", "content": map[string]any{"guest_access": "forbidden"}}, map[string]any{"type": "m.room.name", "content": map[string]any{"name": "other"}}}})
				get := func(typ, key string) map[string]any { return anna.stateOf(id, typ, key).body }
				create, power := get("m.room.create", ""), get("m.room.power_levels", "")
				if create["room_version"] != version || create["type"] != "m.custom" || create["creator"] != nil && create["creator"] != string(anna.id) {
					t.Errorf("%s %s: create %v", version, preset, create)
				}
				if get("m.room.join_rules", "")["join_rule"] != rule || get("m.room.name", "")["name"] != "N" || get("m.room.topic", "")["topic"] != "T" ||
					get("m.room.guest_access", "")["guest_access"] != "forbidden" || get("m.room.history_visibility", "")["history_visibility"] != "shared" {
					t.Errorf("%s %s: state is not that of the preset", version, preset)
				}
				users, _ := power["users"].(map[string]any)
				switch {
				case version == "12" && (users[string(anna.id)] != nil || users[string(bob.id)] != nil):
					t.Errorf("%s %s: creators have levels: %v", version, preset, users)
				case version == "12" && preset == "trusted_private_chat" && fmt.Sprint(create["additional_creators"]) != "[@bob:acme.example]":
					t.Errorf("%s: additional creators %v", version, create["additional_creators"])
				case version != "12" && (users[string(anna.id)] != 100.0 || (users[string(bob.id)] == 100.0) != (preset == "trusted_private_chat")):
					t.Errorf("%s %s: users %v", version, preset, users)
				}
				if version == "12" {
					if events, _ := power["events"].(map[string]any); events["m.room.tombstone"] != 150.0 || strings.Contains(id, ":") {
						t.Errorf("room %s: tombstone level %v", id, events["m.room.tombstone"])
					}
				}
				invite := get("m.room.member", string(bob.id))
				if invite["membership"] != "invite" || invite["is_direct"] != true || invite["displayname"] != "Bob" || get("m.room.member", string(anna.id))["displayname"] != "Anna" {
					t.Errorf("%s %s: invitation %v", version, preset, invite)
				}
				bob.ok("POST", "/rooms/%s/join", "", id)
			}
		}
	})
}

func TestCreateRoom_EventOrder(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		id := anna.create(map[string]any{"room_alias_name": "pub", "name": "N", "topic": "T", "invite": []string{string(bob.id)},
			"initial_state": []any{map[string]any{"type": "x.first", "content": map[string]any{}}, map[string]any{"type": "x.second", "state_key": "k", "content": map[string]any{}}}})
		var got []string
		err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
			list, err := tx.LoadPage(matrix.RoomID(id), 0, storage.Forward, 100)
			for _, e := range list {
				got = append(got, strings.TrimPrefix(e.Type, "m.room."))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(got, " "); s != "create member power_levels canonical_alias join_rules history_visibility guest_access x.first x.second name topic member" {
			t.Errorf("order of events: %s", s)
		}
		if a := anna.ok("GET", "/directory/room/%s", nil, "#pub:acme.example"); a.body["room_id"] != id {
			t.Errorf("the alias leads to %v", a.body["room_id"])
		}
	})
}

// A request to make a room that contradicts itself makes none.
func TestJ23_CreateRoomTampering(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		for what, c := range map[string]struct {
			body, code string
		}{
			"create event":              {`{"initial_state":[{"type":"m.room.create","content":{"creator":"@x:y"}}]}`, "M_INVALID_ROOM_STATE"},
			"somebody else's join":      {`{"initial_state":[{"type":"m.room.member","state_key":"@bob:acme.example","content":{"membership":"join"}}]}`, "M_INVALID_ROOM_STATE"},
			"state without content":     {`{"initial_state":[{"type":"x.y"}]}`, "M_BAD_JSON"},
			"content is a list":         {`{"initial_state":[{"type":"x.y","content":[]}]}`, "M_BAD_JSON"},
			"creation_content a list":   {`{"creation_content":[]}`, "M_BAD_JSON"},
			"federate is a string":      {`{"creation_content":{"m.federate":"false"}}`, "M_BAD_JSON"},
			"type is a number":          {`{"creation_content":{"type":5}}`, "M_BAD_JSON"},
			"predecessor is a string":   {`{"creation_content":{"predecessor":"!x:y"}}`, "M_BAD_JSON"},
			"additional_creators":       {`{"creation_content":{"additional_creators":5}}`, "M_INVALID_PARAM"},
			"levels lock the creator":   {`{"room_version":"11","name":"N","power_level_content_override":{"users":{},"state_default":50}}`, "M_INVALID_ROOM_STATE"},
			"level is a string":         {`{"power_level_content_override":{"ban":"50"}}`, "M_BAD_JSON"},
			"override is a list":        {`{"power_level_content_override":[]}`, "M_BAD_JSON"},
			"unknown preset":            {`{"preset":"x"}`, "M_INVALID_PARAM"},
			"unknown visibility":        {`{"visibility":"x"}`, "M_INVALID_PARAM"},
			"invite no user":            {`{"invite":["bob"]}`, "M_INVALID_PARAM"},
			"invite oneself":            {`{"invite":["@anna:acme.example"]}`, "M_INVALID_PARAM"},
			"alias with a colon":        {`{"room_alias_name":"a:b"}`, "M_INVALID_PARAM"},
			"empty alias":               {`{"room_alias_name":""}`, "M_INVALID_PARAM"},
			"canonical alias elsewhere": {`{"initial_state":[{"type":"m.room.canonical_alias","content":{"alias":"#x:acme.example"}}]}`, "M_BAD_ALIAS"},
			"body is a list":            {`[]`, "M_BAD_JSON"},
			"not JSON":                  {`{`, "M_NOT_JSON"},
			"float in content":          {`{"initial_state":[{"type":"x.y","content":{"a":1.5}}]}`, "M_BAD_JSON"},
		} {
			want(t, what, anna.do("POST", "/createRoom", c.body), 400, c.code)
		}
		want(t, "invite by mail", anna.do("POST", "/createRoom", `{"invite_3pid":[{"medium":"email","address":"a@b"}]}`), 403, "M_THREEPID_DENIED")
		want(t, "large topic", anna.do("POST", "/createRoom", map[string]any{"topic": strings.Repeat("x", 70000)}), 413, "M_TOO_LARGE")
		if n := h.roomCount(); n != 0 {
			t.Errorf("%d rooms were made", n)
		}
		id := anna.create(`{"room_version":"11","creation_content":{"creator":"@x:y","room_version":"1"}}`)
		if c := anna.stateOf(id, "m.room.create", "").body; c["room_version"] != "11" || c["creator"] != nil {
			t.Errorf("create event %v", c)
		}
	})
}

func TestA42_AdditionalCreatorsAreChecked(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		for _, list := range []string{`"x"`, `[7]`, `["bob"]`, `{}`, `["@a:b","@"]`} {
			want(t, list, anna.do("POST", "/createRoom", `{"creation_content":{"additional_creators":`+list+`}}`), 400, "M_INVALID_PARAM")
		}
	})
}

func TestA45_CreatorInPowerLevels(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		a := anna.do("POST", "/createRoom", `{"power_level_content_override":{"users":{"@anna:acme.example":100}}}`)
		want(t, "at creation", a, 400, "M_INVALID_ROOM_STATE")
		id := anna.create(`{}`)
		want(t, "later", anna.do("PUT", "/rooms/%s/state/m.room.power_levels", `{"users":{"@anna:acme.example":100}}`, id), 403, "M_FORBIDDEN")
	})
}

func TestA75_UnknownRoomVersion(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id := anna.create(`{}`)
		for _, v := range []string{`"99"`, `6`, `""`, `null`, `{}`, `"6 "`} {
			if v != "null" {
				want(t, "create "+v, anna.do("POST", "/createRoom", `{"room_version":`+v+`}`), 400, "M_UNSUPPORTED_ROOM_VERSION")
			}
			want(t, "upgrade to "+v, anna.do("POST", "/rooms/%s/upgrade", `{"new_version":`+v+`}`, id), 400, "M_UNSUPPORTED_ROOM_VERSION")
		}
	})
}

// A room is there whole, with its alias and its place in the list, or not at all.
func TestD443_CreateRoomIsAtomic(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		first := anna.create(`{"room_alias_name":"hall","visibility":"public"}`)
		a := anna.do("POST", "/createRoom", `{"room_alias_name":"hall","visibility":"public","name":"second"}`)
		want(t, "alias taken", a, 400, "M_ROOM_IN_USE")
		// A failure in the last step of the transaction leaves nothing of the steps before.
		broken := errors.New("broken")
		v, _ := matrix.FindRoomVersion("12")
		_, err := h.rooms.Create(context.Background(), room.NewRoom{Version: v, Creator: anna.id,
			Drafts: []room.NewDraft{{Draft: room.Draft{Type: "m.room.create", StateKey: new(string), Content: []byte(`{"room_version":"12"}`)}, Decided: true}},
			Also: func(tx *storage.Tx, id matrix.RoomID) error {
				if _, err := tx.PutAlias(storage.Alias{Alias: "#ghost:acme.example", RoomID: id, Creator: anna.id}); err != nil {
					return err
				}
				return broken
			}})
		if !errors.Is(err, broken) {
			t.Errorf("Create = %v", err)
		}
		h.restart()
		if n := h.roomCount(); n != 1 {
			t.Errorf("%d rooms, want the first alone", n)
		}
		want(t, "alias of a room that is not", anna.do("GET", "/directory/room/%s", nil, "#ghost:acme.example"), 404, "M_NOT_FOUND")
		if a := anna.ok("GET", "/directory/room/%s", nil, "#hall:acme.example"); a.body["room_id"] != first {
			t.Errorf("the alias leads to %v, want %s", a.body["room_id"], first)
		}
		if chunk := anna.ok("GET", "/publicRooms", nil).body["chunk"].([]any); len(chunk) != 1 {
			t.Errorf("the list has %v", chunk)
		}
	})
}

func TestP326_PublishingIsDecided(t *testing.T) {
	files := with(friends(), "acme.example/rooms.yaml", "rooms: {publish: {groups: [press]}, public: {groups: [press]}, alias: {groups: [press]}}\n")
	eachHouse(t, files, func(t *testing.T, h *house) {
		anna, paul := h.user("anna", acme), h.user("paul", acme, "press")
		id := anna.create(`{"creation_content":{"type":"m.space"}}`)
		refusedByPolicy(t, "list", anna.do("PUT", "/directory/list/room/%s", `{"visibility":"public"}`, id))
		refusedByPolicy(t, "alias", anna.do("PUT", "/directory/room/%s", map[string]any{"room_id": id}, "#x:acme.example"))
		refusedByPolicy(t, "create a listed room", anna.do("POST", "/createRoom", `{"visibility":"public","preset":"private_chat"}`))
		refusedByPolicy(t, "create an open room", anna.do("POST", "/createRoom", `{"preset":"public_chat"}`))
		refusedByPolicy(t, "create with an alias", anna.do("POST", "/createRoom", `{"room_alias_name":"x"}`))
		refusedByPolicy(t, "open it later", anna.do("PUT", "/rooms/%s/state/m.room.join_rules", `{"join_rule":"public"}`, id))
		paul.create(`{"visibility":"public","room_alias_name":"x"}`)
		if n := h.roomCount(); n != 2 {
			t.Errorf("%d rooms, want 2", n)
		}
	})
}

func TestP327_InternalRoomsDoNotFederate(t *testing.T) {
	files := with(friends(), "acme.example/rooms.yaml", "rooms: {federate: never}\n")
	eachHouse(t, files, func(t *testing.T, h *house) {
		anna, gina := h.user("anna", acme), h.user("gina", globex)
		id := anna.create(`{"creation_content":{"m.federate":true}}`)
		if c := anna.stateOf(id, "m.room.create", "").body; c["m.federate"] != false {
			t.Errorf("create event %v", c)
		}
		refusedByPolicy(t, "invite a partner", anna.do("POST", "/rooms/%s/invite", map[string]any{"user_id": gina.id}, id))
		next, _ := anna.ok("POST", "/rooms/%s/upgrade", `{"new_version":"11"}`, id).body["replacement_room"].(string)
		if c := anna.stateOf(next, "m.room.create", "").body; c["m.federate"] != false {
			t.Errorf("create event after the upgrade %v", c)
		}
	})
}

func TestP325_EncryptionStays(t *testing.T) {
	eachHouse(t, with(friends(), "acme.example/content.yaml", "content: {encryption: required}\n"), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id := anna.create(`{"name":"N"}`)
		if c := anna.stateOf(id, "m.room.encryption", "").body; c["algorithm"] != "m.megolm.v1.aes-sha2" {
			t.Errorf("encryption %v", c)
		}
		for _, content := range []string{`{}`, `{"algorithm":"none"}`, `{"algorithm":7}`} {
			a := anna.do("PUT", "/rooms/%s/state/m.room.encryption", content, id)
			want(t, content, a, 403, "M_FORBIDDEN")
		}
		refusedByPolicy(t, "a message in the clear", anna.do("PUT", "/rooms/%s/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`, id))
	})
}

func TestJoinedRooms(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		a, b := anna.create(`{}`), anna.create(map[string]any{"invite": []string{string(bob.id)}})
		if got := anna.ok("GET", "/joined_rooms", nil).raw; !strings.Contains(got, a) || !strings.Contains(got, b) {
			t.Errorf("joined rooms %s", got)
		}
		anna.ok("POST", "/rooms/%s/leave", nil, a)
		if got := anna.ok("GET", "/joined_rooms", nil).raw; strings.Contains(got, a) {
			t.Errorf("joined rooms %s", got)
		}
		if got := bob.ok("GET", "/joined_rooms", nil).raw; got != `{"joined_rooms":[]}` {
			t.Errorf("joined rooms of an invited user %s", got)
		}
	})
}

// Of several who want one alias at a time, one gets it, and the others have made no room.
func TestCreateRoom_AliasRace(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		const tries = 8
		answers := make([]answer, tries)
		var wg sync.WaitGroup
		for i := range tries {
			wg.Add(1)
			go func() {
				defer wg.Done()
				answers[i] = anna.do("POST", "/createRoom", `{"room_alias_name":"one"}`)
			}()
		}
		wg.Wait()
		made := 0
		for _, a := range answers {
			if a.status == 200 {
				made++
				continue
			}
			want(t, "the others", a, 400, "M_ROOM_IN_USE")
		}
		if n := h.roomCount(); made != 1 || n != 1 {
			t.Errorf("%d answers of success, %d rooms", made, n)
		}
	})
}

// Many who join at a time all get in, once each.
func TestJoin_ManyAtATime(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id := anna.create(`{"preset":"public_chat"}`)
		var people []*guest
		for i := range 12 {
			people = append(people, h.user(fmt.Sprint("p", i), []matrix.ServerName{acme, globex}[i%2]))
		}
		var wg sync.WaitGroup
		for _, p := range people {
			for range 2 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					if a := p.do("POST", "/join/%s", nil, id); a.status != 200 {
						t.Errorf("%s: %s", p.id, a)
					}
				}()
			}
		}
		wg.Wait()
		if n := strings.Count(anna.ok("GET", "/rooms/%s/members?membership=join", nil, id).raw, `"membership":"join"`); n != len(people)+1 {
			t.Errorf("%d members", n)
		}
		err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
			list, err := tx.LoadPage(matrix.RoomID(id), 0, storage.Forward, 100)
			seen := map[string]bool{}
			for _, e := range list {
				if e.Type == "m.room.member" && seen[*e.StateKey] {
					t.Errorf("%s has joined twice", *e.StateKey)
				}
				if e.Type == "m.room.member" {
					seen[*e.StateKey] = true
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
