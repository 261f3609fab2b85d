package federation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/test/hstest"
)

// party is a room of one.example with a local user and a guest.
func party(t *testing.T, f *hstest.Federation, version string) (*hstest.User, *guest) {
	t.Helper()
	anna := f.Servers[0].User("anna")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": version})
	return anna, enter(t, f.Outsider(hstest.Outside), "fred", room, version)
}

func TestF93_TooManyPDUsAndEDUs(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		var pdus []json.RawMessage
		for i := range 51 {
			pdus = append(pdus, raw(g.message(fmt.Sprint("many ", i)))...)
		}
		if a := g.transaction("t1", pdus); a.Status != 400 {
			t.Errorf("51 PDUs: %d %s", a.Status, a.Raw)
		}
		edus := make([]any, 101)
		for i := range edus {
			edus[i] = map[string]any{"edu_type": "x", "content": map[string]any{}}
		}
		if a := g.transaction("t2", pdus[:1], edus...); a.Status != 400 {
			t.Errorf("101 EDUs: %d %s", a.Status, a.Raw)
		}
		if a := g.transaction("t3", pdus[:1], make([]any, 1_000_000)...); a.Status != 400 {
			t.Errorf("a million EDUs: %d %s", a.Status, a.Raw)
		}
		if a := anna.Sync(0); has(string(g.room), "many 0")(a) {
			t.Error("something of it was stored")
		}
		if r := results(t, g.transaction("t4", pdus[:50], edus[:100]...)); len(r) != 50 {
			t.Errorf("%d results for 50 PDUs", len(r))
		}
		anna.Until("the last message", has(string(g.room), "many 49"))
	})
}

// One bad event never harms the others, whatever is bad about it.
func TestF94_OneBadPDUOfFifty(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		o := f.Outsider(hstest.Outside)
		for _, version := range []string{"1", "6", "11", "12"} {
			anna := f.Servers[0].User("anna" + version)
			room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": version})
			g := enter(t, o, "fred", room, version)
			first := g.message("bad")
			bads := map[string]json.RawMessage{
				"signature": json.RawMessage(strings.Replace(string(event.Federation(first)), `"ed25519:`, `"ed25519:x`, 1)),
				"depth":     json.RawMessage(strings.Replace(string(event.Federation(first)), fmt.Sprintf(`"depth":%d`, first.Depth), `"depth":"deep"`, 1)),
				"room":      json.RawMessage(strings.Replace(string(event.Federation(first)), `"room_id":"!`, `"room_id":"!x`, 1)),
				"no room":   json.RawMessage(strings.Replace(string(event.Federation(first)), `"room_id":"!`, `"room_id":"`, 1)),
				"no object": json.RawMessage(`"event"`),
				"null":      json.RawMessage(`null`),
				"empty":     json.RawMessage(`{}`),
				"only room": json.RawMessage(`{"room_id":` + quote(room) + `}`),
				"types":     json.RawMessage(`{"room_id":` + quote(room) + `,"type":1,"sender":[],"content":7,"prev_events":{},"auth_events":"x"}`),
			}
			g.last = g.join
			for what, bad := range bads {
				good := g.message("good after " + what)
				more := g.message("and one more after " + what)
				r := results(t, g.transaction("bad-"+hstest.Esc(what)+version, []json.RawMessage{raw(good)[0], bad, raw(more)[0]}))
				for _, e := range []*event.Event{good, more} {
					if reason, ok := r[e.ID]; !ok || reason != "" {
						t.Errorf("version %s, %s: a good event beside it: %q (there: %v)", version, what, reason, ok)
					}
				}
				refused := 0
				for _, reason := range r {
					if reason != "" {
						refused++
					}
				}
				if refused == 0 && len(r) > 2 {
					t.Errorf("version %s, %s: no error: %v", version, what, r)
				}
				anna.Until("what came with "+what, has(room, "and one more after "+what))
			}
		}
	})
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// Events of rooms that nobody here is in: an error for each, and nobody is asked about them.
func TestF95_PDUForAnUnknownRoom(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		_, g := party(t, f, "11")
		known := g.room
		var pdus []json.RawMessage
		var ids []matrix.EventID
		for _, id := range []matrix.RoomID{"!nothing:one.example", "!nothing:outside.example", "!nothing:stranger.example"} {
			g.room = id
			e := g.message("lost")
			pdus, ids = append(pdus, raw(e)...), append(ids, e.ID)
		}
		g.room = known
		r := results(t, g.transaction("t1", pdus))
		for _, id := range ids {
			if r[id] == "" {
				t.Errorf("no error for %s: %v", id, r)
			}
		}
		for len(g.o.Requests) > 0 {
			r := <-g.o.Requests // what the server tells of the room that both are in may come at any time, and so may the question for its keys
			if !strings.Contains(r, "/_matrix/federation/v1/send/") && !strings.Contains(r, "/_matrix/key/v2/") {
				t.Errorf("somebody was asked: %s", r)
			}
		}
	})
}

// EDUs that are malformed or of a kind that nobody knows are passed over.
func TestF102_MalformedEDUs(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		edus := []any{nil, 7, "x", []any{}, map[string]any{}, map[string]any{"edu_type": 7, "content": map[string]any{}}, map[string]any{"edu_type": "m.typing", "content": nil},
			map[string]any{"edu_type": "m.typing", "content": []any{}}, map[string]any{"edu_type": "com.example.new", "content": map[string]any{"a": 1}}}
		for _, typ := range []string{"m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update", "m.signing_key_update"} {
			edus = append(edus, map[string]any{"edu_type": typ, "content": map[string]any{}},
				map[string]any{"edu_type": typ, "content": map[string]any{"room_id": 7, "user_id": 7, "push": 7, "sender": 7, "messages": 7, string(g.room): 7, "stream_id": "x"}})
		}
		edus = append(edus, map[string]any{"edu_type": "m.typing", "content": map[string]any{"room_id": g.room, "user_id": g.id, "typing": true}})
		if r := results(t, g.transaction("t1", raw(g.message("with EDUs")), edus...)); len(r) != 1 {
			t.Errorf("results: %v", r)
		}
		anna.Until("the guest's typing", func(a hstest.Answer) bool { return strings.Contains(string(a.Raw), `"user_ids":["`+string(g.id)) })
	})
}

// A server that the room's ACL denies brings neither events nor typing nor receipts into it, and others none of its users'.
func TestF103_EDUsUnderACL(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		other := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		h := enter(t, g.o, "fred", other, "11")
		anna.Must("PUT", "/rooms/"+hstest.Esc(string(g.room))+"/state/m.room.server_acl/", map[string]any{"allow": []string{"*"}, "deny": []string{"outside.*"}})
		seen := anna.Send(string(g.room), "who reads this")
		seenToo := anna.Send(other, "and this")
		anna.Sync(0)
		e, ok := g.message("denied"), h.message("allowed")
		read := func(id string) any {
			return map[string]any{"m.read": map[string]any{string(g.id): map[string]any{"event_ids": []string{id}, "data": map[string]any{"ts": 1}}}}
		}
		r := results(t, g.transaction("t1", raw(e, ok),
			map[string]any{"edu_type": "m.typing", "content": map[string]any{"room_id": g.room, "user_id": g.id, "typing": true}},
			map[string]any{"edu_type": "m.receipt", "content": map[string]any{string(g.room): read(seen), other: read(seenToo)}},
			map[string]any{"edu_type": "m.typing", "content": map[string]any{"room_id": other, "user_id": g.id, "typing": true}}))
		if r[e.ID] == "" || r[ok.ID] != "" {
			t.Errorf("results: %v", r)
		}
		var all strings.Builder
		anna.Until("what is allowed", func(a hstest.Answer) bool {
			_, _ = all.Write(a.Raw)
			if m, ok := a.Get("rooms", "join", string(g.room), "ephemeral").(map[string]any); ok && strings.Contains(fmt.Sprint(m), string(g.id)) {
				t.Errorf("in the room that denies it: %v", m)
			}
			return strings.Contains(all.String(), "allowed") && strings.Contains(all.String(), `m.typing`)
		})
		if strings.Contains(all.String(), "denied") {
			t.Error("a denied server's event was shown")
		}
	})
}

// The same transaction again is answered the same and does nothing twice.
func TestSend_Idempotent(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		pdus := raw(g.message("once"))
		target := "/_matrix/federation/v1/send/again"
		body := map[string]any{"origin": g.o.Name, "origin_server_ts": 1, "pdus": pdus}
		first := g.o.Do("PUT", g.to, target, body)
		second := g.o.Do("PUT", g.to, target, body)
		if first.Status != 200 || string(first.Raw) != string(second.Raw) {
			t.Errorf("first %s, then %s", first.Raw, second.Raw)
		}
		f.Servers[0].Restart()
		third := g.o.Do("PUT", g.to, target, body)
		if third.Status != 200 || string(third.Raw) != string(first.Raw) {
			t.Errorf("after a restart: %d %s", third.Status, third.Raw)
		}
		n := 0
		for _, e := range anna.Sync(0).Timeline(string(g.room)) {
			if c, _ := e["content"].(map[string]any); c["body"] == "once" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the message is there %d times", n)
		}
	})
}

// What was answered with 200 is there after the process has died: stopping is the least that can happen to it.
func TestF105_DurableBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		anna, g := party(t, f, "11")
		for i := range 20 {
			if r := results(t, g.transaction(fmt.Sprint("t", i), raw(g.message(fmt.Sprint("durable ", i))))); len(r) != 1 {
				t.Fatalf("results: %v", r)
			}
		}
		f.Servers[0].Restart()
		a := anna.Must("GET", "/rooms/"+hstest.Esc(string(g.room))+"/messages?dir=b&limit=100", nil)
		for i := range 20 {
			if !strings.Contains(string(a.Raw), fmt.Sprintf(`"durable %d"`, i)) {
				t.Errorf("message %d is gone", i)
			}
		}
	})
}
