package clientapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/storage"
)

// A retry finds what the first attempt sent, also at the same moment, after a restart and with a new token of the same device; another
// device, room or type begins anew.
func TestSend_TransactionIDs(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id, other := anna.create(`{}`), anna.create(`{}`)
		send := func(g *guest, room, typ, txn, body string) string {
			return g.ok("PUT", "/rooms/%s/send/%s/%s", `{"msgtype":"m.text","body":"`+body+`"}`, room, typ, txn).eventID()
		}
		first := send(anna, id, "m.room.message", "a/b", "1")
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if again := send(anna, id, "m.room.message", "same", "1"); again == "" {
					t.Error("no event")
				}
			}()
		}
		wg.Wait()
		h.restart()
		anna.h = h
		if again := send(anna, id, "m.room.message", "a/b", "2"); again != first {
			t.Errorf("after a restart %s, want %s", again, first)
		}
		if again := anna.ok("PUT", "/_matrix/client/r0/rooms/%s/send/m.room.message/%s", `{"msgtype":"m.text","body":"1"}`, id, "a/b").eventID(); again != first {
			t.Errorf("under r0 %s, want %s", again, first)
		}
		for what, got := range map[string]string{"another room": send(anna, other, "m.room.message", "a/b", "1"), "another type": send(anna, id, "x.y", "a/b", "1"), "another ID": send(anna, id, "m.room.message", "c", "1")} {
			if got == first {
				t.Errorf("%s has the event of the first request", what)
			}
		}
		a, err := h.accounts.Login(context.Background(), acme, account.Client{}, account.LoginRequest{Type: "m.login.password", Identifier: &account.Identifier{Type: "m.id.user", User: "anna"}, Password: "correct horse battery"})
		if err != nil {
			t.Fatal(err)
		}
		if got := send(&guest{h, anna.id, a.AccessToken}, id, "m.room.message", "a/b", "1"); got == first {
			t.Error("another device has the event of the first request")
		}
		r := anna.ok("PUT", "/rooms/%s/redact/%s/%s", `{"reason":"x"}`, id, first, "r").eventID()
		if again := anna.ok("PUT", "/rooms/%s/redact/%s/%s", ``, id, first, "r").eventID(); again != r {
			t.Errorf("second redaction %s, want %s", again, r)
		}
		want(t, "long ID", anna.do("PUT", "/rooms/%s/send/x.y/%s", `{}`, id, strings.Repeat("x", 300)), 400, "M_INVALID_PARAM")
		var same int
		err = h.db.Read(context.Background(), func(tx *storage.Tx) error {
			list, err := tx.LoadPage(matrix.RoomID(id), 0, storage.Forward, 100)
			for _, e := range list {
				if e.TxnID == "same" {
					same++
				}
			}
			return err
		})
		if err != nil || same != 1 {
			t.Errorf("%d events of one transaction, %v", same, err)
		}
	})
}

func TestSend_BadInput(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		id, other := anna.create(`{"preset":"public_chat"}`), anna.create(`{}`)
		bob.ok("POST", "/join/%s", nil, id)
		elsewhere := anna.ok("PUT", "/rooms/%s/send/x.y/1", `{}`, other).eventID()
		for i, c := range []struct {
			g                  *guest
			path, body, status string
		}{
			{anna, "/send/m.room.message/%d", `[]`, "400 M_BAD_JSON"},
			{anna, "/send/m.room.message/%d", `{`, "400 M_NOT_JSON"},
			{anna, "/send/m.room.message/%d", ``, "400 M_NOT_JSON"},
			{anna, "/send/m.room.message/%d", `{"msgtype":"m.text","body":"x","a":1,"a":2}`, "400 M_BAD_JSON"},
			{anna, "/send/m.room.message/%d", `{"msgtype":"m.text","body":"x","n":9007199254740993}`, "400 M_BAD_JSON"},
			{anna, "/send/m.room.message/%d", `{"body":"x"}`, "400 M_BAD_JSON"},
			{anna, "/send/m.room.message/%d", `{"msgtype":"m.text","body":"` + strings.Repeat("x", 66000) + `"}`, "413 M_TOO_LARGE"},
			{anna, "/send/m.room.redaction/%d", `{}`, "400 M_INVALID_PARAM"},
			{anna, "/send/m.room.redaction/%d", `{"redacts":"$none"}`, "404 M_NOT_FOUND"},
			{anna, "/redact/$none/%d", `{}`, "404 M_NOT_FOUND"},
			{anna, "/redact/" + elsewhere + "/%d", `{}`, "404 M_NOT_FOUND"},
			{anna, "/redact/none/%d", `{}`, "400 M_INVALID_PARAM"},
			{anna, "/redact/$none/%d", `{"reason":7}`, "400 M_BAD_JSON"},
			{anna, "/state/m.room.create", `{}`, "400 M_INVALID_ROOM_STATE"},
			{anna, "/state/m.room.power_levels", `{"users":{"bob":1}}`, "400 M_BAD_JSON"},
			{anna, "/state/m.room.power_levels", `{"ban":"1"}`, "400 M_BAD_JSON"},
			{anna, "/state/x.y/@bob:acme.example", `{}`, "403 M_FORBIDDEN"},
			{anna, "/state/x.y/" + strings.Repeat("k", 300), `{}`, "400 M_INVALID_PARAM"},
			{bob, "/state/m.room.name", `{"name":"x"}`, "403 M_FORBIDDEN"},
			{bob, "/state/m.room.power_levels", `{"users":{"@bob:acme.example":100}}`, "403 M_FORBIDDEN"},
		} {
			path := c.path
			if strings.Contains(path, "%d") {
				path = fmt.Sprintf(path, i)
			}
			a := c.g.do("PUT", "/rooms/%s"+path, c.body, id)
			if got := fmt.Sprint(a.status, " ", a.code()); got != c.status {
				t.Errorf("%s %.60s: %s; want %s", c.path, c.body, a, c.status)
			}
		}
		want(t, "no such room ID", anna.do("PUT", "/rooms/%s/send/x.y/1", `{}`, "x"), 400, "M_INVALID_PARAM")
	})
}

func TestState_Paths(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna := h.user("anna", acme)
		id := anna.create(`{}`)
		for key, path := range map[string]string{"": "/rooms/%s/state/x.y", "a/b": "/rooms/%s/state/x.y/a%%2Fb", "ä \u0001": "/rooms/%s/state/x.y/%%C3%%A4%%20%%01"} {
			a := anna.ok("PUT", path, map[string]any{"key": key}, id)
			if got := anna.ok("GET", path, nil, id); got.body["key"] != key {
				t.Errorf("state of %q: %s", key, got)
			}
			whole := anna.ok("GET", path+"?format=event", nil, id).body
			if whole["event_id"] != a.eventID() || whole["state_key"] != key || whole["sender"] != string(anna.id) || whole["type"] != "x.y" || whole["room_id"] != id {
				t.Errorf("event of %q: %v", key, whole)
			}
			// What would change nothing makes no event.
			if again := anna.ok("PUT", path, map[string]any{"key": key}, id); again.eventID() != a.eventID() {
				t.Errorf("%q: a second event %s for the same state", key, again)
			}
		}
		if got := anna.ok("GET", "/rooms/%s/state/x.y/", nil, id); got.body["key"] != "" {
			t.Errorf("with a slash at the end: %s", got)
		}
		want(t, "absent", anna.do("GET", "/rooms/%s/state/x.z", nil, id), 404, "M_NOT_FOUND")
		want(t, "bad format", anna.do("GET", "/rooms/%s/state/x.y?format=x", nil, id), 400, "M_INVALID_PARAM")
		want(t, "POST", anna.do("POST", "/rooms/%s/state/x.y", `{}`, id), 405, "M_UNRECOGNIZED")
	})
}

// Members see the present, who has left sees the moment of leaving, others see nothing unless the room is open to all.
func TestState_WhoSeesWhat(t *testing.T) {
	eachHouse(t, with(friends(), "acme.example/rooms.yaml", "rooms: {history_visibility: [shared, invited, joined, world_readable]}\n"), func(t *testing.T, h *house) {
		anna, bob, carl, eve := h.user("anna", acme), h.user("bob", acme), h.user("carl", acme), h.user("eve", acme)
		id := anna.create(map[string]any{"preset": "public_chat", "name": "before", "invite": []string{string(carl.id)}})
		bob.ok("POST", "/join/%s", nil, id)
		anna.ok("PUT", "/rooms/%s/state/m.room.name", `{"name":"during"}`, id)
		bob.ok("POST", "/rooms/%s/leave", nil, id)
		anna.ok("PUT", "/rooms/%s/state/m.room.name", `{"name":"after"}`, id)
		eve.ok("POST", "/join/%s", nil, id)
		anna.ok("POST", "/rooms/%s/ban", userID(bob.id), id)
		anna.ok("PUT", "/rooms/%s/state/x.late", `{}`, id)
		name := func(g *guest) any { return g.stateOf(id, "m.room.name", "").body["name"] }
		if name(anna) != "after" || name(bob) != "during" {
			t.Errorf("anna sees %v, bob %v", name(anna), name(bob))
		}
		if a := bob.stateOf(id, "x.late", ""); a.status != 404 {
			t.Errorf("bob sees what came after the ban: %s", a)
		}
		members := func(g *guest, query string) []string {
			var out []string
			a := g.ok("GET", "/rooms/%s/members"+query, nil, id)
			for _, e := range a.body["chunk"].([]any) {
				m := e.(map[string]any)
				out = append(out, strings.TrimSuffix(strings.TrimPrefix(m["state_key"].(string), "@"), ":acme.example")+" "+m["content"].(map[string]any)["membership"].(string))
			}
			return slices.Sorted(slices.Values(out))
		}
		for _, c := range []struct {
			g           *guest
			query, want string
		}{
			{anna, "", "anna join,bob ban,carl invite,eve join"}, {anna, "?membership=join", "anna join,eve join"},
			{anna, "?not_membership=join", "bob ban,carl invite"}, {anna, "?membership=ban&not_membership=join", "bob ban,carl invite"},
			{bob, "", "anna join,bob leave,carl invite"}, {bob, "?membership=join", "anna join"},
		} {
			if got := strings.Join(members(c.g, c.query), ","); got != c.want {
				t.Errorf("%s sees members%s %s; want %s", c.g.id, c.query, got, c.want)
			}
		}
		want(t, "unknown membership", anna.do("GET", "/rooms/%s/members?membership=x", nil, id), 400, "M_INVALID_PARAM")
		want(t, "bad token", anna.do("GET", "/rooms/%s/members?at=x", nil, id), 400, "M_INVALID_PARAM")
		if got := strings.Join(members(anna, fmt.Sprintf("?at=s%d", position(t, h, id, "m.room.history_visibility"))), ","); got != "anna join" {
			t.Errorf("members at the beginning: %s", got)
		}
		if got := anna.ok("GET", "/rooms/%s/joined_members", nil, id).raw; got != `{"joined":{"@anna:acme.example":{"display_name":"Anna","avatar_url":null},"@eve:acme.example":{"display_name":"Eve","avatar_url":null}}}` {
			t.Errorf("joined members %s", got)
		}
		want(t, "joined_members for who has left", bob.do("GET", "/rooms/%s/joined_members", nil, id), 403, "M_FORBIDDEN")
		if n := len(stateList(t, anna, id)); n < 9 {
			t.Errorf("%d state events", n)
		}
		for _, path := range []string{"/rooms/%s/state", "/rooms/%s/members", "/rooms/%s/joined_members", "/rooms/%s/aliases", "/rooms/%s/state/m.room.name"} {
			want(t, "invited: "+path, carl.do("GET", path, nil, id), 403, "M_FORBIDDEN")
		}
		anna.ok("PUT", "/rooms/%s/state/m.room.history_visibility", `{"history_visibility":"world_readable"}`, id)
		dora := h.user("dora", acme)
		if dora.stateOf(id, "m.room.name", "").body["name"] != "after" || len(members(dora, "")) != 4 {
			t.Error("a stranger does not see a room that is open to all")
		}
		want(t, "joined_members for a stranger", dora.do("GET", "/rooms/%s/joined_members", nil, id), 403, "M_FORBIDDEN")
		bob.ok("POST", "/rooms/%s/forget", nil, id)
		anna.ok("PUT", "/rooms/%s/state/m.room.history_visibility", `{"history_visibility":"shared"}`, id)
		want(t, "forgotten", bob.do("GET", "/rooms/%s/state", nil, id), 403, "M_FORBIDDEN")
	})
}

// position is where the first event of a type stands in the log.
func position(t testing.TB, h *house, room, typ string) (pos int64) {
	t.Helper()
	err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
		list, err := tx.LoadPage(matrix.RoomID(room), 0, storage.Forward, 100)
		for _, e := range list {
			if e.Type == typ && pos == 0 {
				pos = e.Pos
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func stateList(t testing.TB, g *guest, room string) []string {
	t.Helper()
	raw := g.ok("GET", "/rooms/%s/state", nil, room).raw
	return strings.Split(raw, `"type":`)[1:]
}

// A room that is open to all is closed to who may not be with those who are in it.
func TestP317_PeekIntoARoomOutOfReach(t *testing.T) {
	eachHouse(t, pools("acme.example/rooms.yaml", "rooms: {history_visibility: [shared, world_readable]}\n", "globex.example/rooms.yaml", "rooms: {history_visibility: [shared, world_readable]}\n"), func(t *testing.T, h *house) {
		c := newCast(h)
		for _, b := range c.denied() {
			id := b.create(`{"preset":"public_chat","initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":"world_readable"}}]}`)
			absent := "!" + strings.Repeat("a", 43)
			for _, path := range []string{"/rooms/%s/state", "/rooms/%s/state/m.room.create", "/rooms/%s/members", "/rooms/%s/joined_members", "/rooms/%s/aliases"} {
				there, missing := c.anna.do("GET", path, nil, id), c.anna.do("GET", path, nil, absent)
				want(t, path, there, 403, "M_FORBIDDEN")
				if there.raw != missing.raw {
					t.Errorf("%s: %s for a room that exists, %s for one that does not", path, there, missing)
				}
			}
		}
	})
}

// A suspended user may leave rooms and redact what is their own, no more.
func TestSuspended_WindsDown(t *testing.T) {
	eachHouse(t, friends(), func(t *testing.T, h *house) {
		anna, bob := h.user("anna", acme), h.user("bob", acme)
		id, other := anna.create(`{"preset":"public_chat"}`), bob.create(`{"preset":"public_chat"}`)
		bob.ok("POST", "/join/%s", nil, id)
		own := anna.ok("PUT", "/rooms/%s/send/x.y/1", `{}`, id).eventID()
		theirs := bob.ok("PUT", "/rooms/%s/send/x.y/1", `{}`, id).eventID()
		if err := h.accounts.Suspend(context.Background(), account.Operator("test"), anna.id, true); err != nil {
			t.Fatal(err)
		}
		for what, a := range map[string]answer{
			"send": anna.do("PUT", "/rooms/%s/send/x.y/2", `{}`, id), "state": anna.do("PUT", "/rooms/%s/state/x.y", `{}`, id),
			"join": anna.do("POST", "/join/%s", nil, other), "knock": anna.do("POST", "/knock/%s", nil, other), "create": anna.do("POST", "/createRoom", `{}`),
			"invite": anna.do("POST", "/rooms/%s/invite", userID(bob.id), id), "ban": anna.do("POST", "/rooms/%s/ban", userID(bob.id), id),
			"redact another's event": anna.do("PUT", "/rooms/%s/redact/%s/1", `{}`, id, theirs), "redact nothing": anna.do("PUT", "/rooms/%s/redact/$none/1", `{}`, id),
			"alias": anna.do("PUT", "/directory/room/%s", map[string]any{"room_id": id}, "#x:acme.example"), "list": anna.do("PUT", "/directory/list/room/%s", `{}`, id),
			"upgrade": anna.do("POST", "/rooms/%s/upgrade", `{"new_version":"11"}`, id),
		} {
			want(t, what, a, 403, "M_USER_SUSPENDED")
		}
		anna.ok("PUT", "/rooms/%s/redact/%s/1", `{}`, id, own)
		anna.ok("GET", "/rooms/%s/state", nil, id)
		anna.ok("POST", "/rooms/%s/leave", nil, id)
		anna.ok("POST", "/rooms/%s/forget", nil, id)
	})
}
