package api

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// Two people who may not meet are in the same room one after the other, with a third one who may meet both. What the first has left
// there, messages, state, names, reasons, redactions, receipts, what others' events say of what it was before, is not shown to the second, on
// no route; and there is no badge for it. The third one sees it all.
func TestLeak_SuccessiveOccupants(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		w := &camps{t: t, s: s, seen: map[string]bool{}, canaries: &canaries{t: t, shared: map[string]bool{}, labels: map[string]bool{}}}
		plant := func(label string) string { return "Canary " + w.canaries.plant("marketing", label, true) }
		mara := s.User("m"+w.canaries.plant("marketing", "user ID", true), "marketing")
		sid, sue := s.User("sid", "sales"), s.User("sue", "suppliers")
		esc := hstest.Esc
		sid.Must("PUT", "/profile/"+esc(string(sid.ID))+"/displayname", object{"displayname": "Sid"})
		mara.Must("PUT", "/profile/"+esc(string(mara.ID))+"/displayname", object{"displayname": plant("display name")})
		for _, kind := range []string{"shared", "world_readable"} {
			say := func(label string) string { return plant(kind + ": " + label) }
			id := sid.CreateRoom(object{"preset": "public_chat", "power_level_content_override": object{"state_default": 0, "events": object{}, "redact": 0},
				"initial_state": []any{object{"type": "m.room.history_visibility", "content": object{"history_visibility": kind}}}})
			room := "/rooms/" + esc(id)
			put := func(u *hstest.User, path string, body object) string {
				return u.Must("PUT", room+path, body).String("event_id")
			}
			mara.Must("POST", "/join/"+esc(id), object{"reason": say("reason for joining")})
			levels := sid.Must("GET", room+"/state/m.room.power_levels", nil).JSON
			levels["users"] = object{string(mara.ID): 50}
			put(sid, "/state/m.room.power_levels", levels) // names somebody, in an event of somebody else
			hello := sid.Send(id, "HELLO")
			said := put(mara, "/send/m.room.message/"+mara.Txn(), object{"msgtype": "m.text", "body": say("message"), "m.mentions": object{"room": true, "user_ids": []string{string(sue.ID)}}})
			put(mara, "/send/m.room.message/"+mara.Txn(), object{"msgtype": "m.text", "body": say("reply"), "m.relates_to": object{"rel_type": "m.thread", "event_id": hello}})
			put(mara, "/send/m.reaction/"+mara.Txn(), object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": hello, "key": say("reaction")}})
			put(mara, "/state/m.room.name", object{"name": say("name")})
			put(mara, "/state/m.room.topic", object{"topic": say("topic, later replaced")})
			put(mara, "/state/m.room.history_visibility", object{"history_visibility": kind, "note": say("extra member of structural state")})
			put(mara, "/state/org.example.note/"+w.canaries.plant("marketing", kind+": state key", true), object{})
			put(mara, "/state/m.room.avatar", object{"url": "mxc://acme.example/" + w.canaries.plant("marketing", kind+": avatar", true)})
			put(sid, "/state/m.room.topic", object{"topic": "Sid's topic"}) // its event carries what was before
			gone := sid.Send(id, "GONE")
			mara.Must("POST", room+"/receipt/m.read/"+esc(gone), object{})
			put(mara, "/redact/"+esc(gone)+"/"+mara.Txn(), object{"reason": say("reason of a redaction")})
			put(mara, "/typing/"+esc(string(mara.ID)), object{"typing": true, "timeout": 120000})
			kicked := s.User("k"+w.canaries.plant("marketing", kind+": user ID of another", true), "marketing")
			kicked.Join(id)
			sid.Must("POST", room+"/kick", object{"user_id": kicked.ID, "reason": say("reason of a kick")})
			mara.Must("POST", room+"/leave", object{"reason": say("reason for leaving")})
			a := aim{user: string(mara.ID), device: mara.DeviceID, room: id, alias: "#none:acme.example", event: hello, thread: hello, server: "acme.example", media: "none", filter: "1", backup: "1", rule: "x",
				tenant: "acme.example", text: "canary", keyObject: object{}, key: "x"}
			w.succeed(t, sue, sid, a, said)
		}
		for _, version := range []string{"10", "12"} { // rooms that mara has made
			say := func(label string) string { return plant("made by her, version " + version + ": " + label) }
			body := object{"preset": "public_chat", "room_version": version, "creation_content": object{"note": say("member of the create event"), "additional_creators": []string{string(sid.ID)}},
				"initial_state": []any{object{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2", "note": say("member of the encryption event")}},
					object{"type": "m.room.join_rules", "content": object{"join_rule": "public", "allow": []any{object{"type": say("condition"), "room_id": say("room of a condition")}}}}}}
			if version == "10" {
				body["power_level_content_override"] = object{"users": object{string(mara.ID): 100, string(sid.ID): 100}, "events": object{w.canaries.plant("marketing", version+": type of event", true): 1}}
			}
			id := mara.CreateRoom(body)
			sid.Join(id)
			mara.Must("POST", "/rooms/"+esc(id)+"/leave", object{})
			hello := sid.Send(id, "HELLO")
			w.succeed(t, sue, sid, aim{user: string(mara.ID), device: mara.DeviceID, room: id, alias: "#none:acme.example", event: hello, thread: hello, server: "acme.example", media: "none", filter: "1",
				backup: "1", rule: "x", tenant: "acme.example", text: "canary", keyObject: object{}, key: "x"}, hello)
			if a := sue.Must("GET", "/rooms/"+esc(id)+"/state/m.room.encryption", nil); a.String("algorithm") != "m.megolm.v1.aes-sha2" {
				t.Errorf("the room does not look encrypted any more: %s", a.Raw)
			}
			if a := sue.Must("GET", "/rooms/"+esc(id)+"/state/m.room.create", nil); a.String("room_version") != version {
				t.Errorf("the room has lost its version: %s", a.Raw)
			}
		}
		// Everything was there: the third one sees it.
		seen := string(sid.Must("GET", "/sync?timeout=0&full_state=true&filter="+url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`), nil).Raw)
		for _, c := range w.canaries.list {
			if !strings.Contains(seen, c.text) && !strings.Contains(c.label, "replaced") && !strings.Contains(c.label, "reason for joining") {
				t.Errorf("sid does not see %q", c.label)
			}
		}
	})
}

// succeed lets sue come into a room that somebody out of reach has left, and look everywhere.
func (w *camps) succeed(t *testing.T, sue, sid *hstest.User, a aim, hidden string) {
	t.Helper()
	check := func(what string, raw []byte) {
		for _, k := range w.canaries.found(raw, "marketing", true) {
			i := strings.Index(string(raw), k.text)
			t.Errorf("%s shows %q: %s", what, k.label, raw[max(0, i-200):min(len(raw), i+100)])
		}
	}
	look := func(when string) {
		since := sue.Since
		if since == "" {
			since = sue.Sync(0).String("next_batch")
		}
		a.since = since
		for _, e := range w.s.API.Table() {
			if e.Method != "GET" && !slices.ContainsFunc([]string{"/user_directory/search", "/publicRooms", "/keys/query"}, func(p string) bool { return strings.HasSuffix(e.Paths[0], p) }) {
				continue
			}
			for _, c := range calls(t, e, a, &w.txn) {
				if strings.Contains(c.path, url.PathEscape(a.user)) || c.body != nil && strings.Contains(c.path, "/keys/query") || strings.Contains(c.path, "user_directory") {
					continue // the name is in the request
				}
				check(when+": "+c.String(), sue.Try(c.method, c.path, c.body).Raw)
			}
		}
		for _, q := range []string{"&use_state_after=true", "&full_state=true&use_state_after=true", "&filter=" + url.QueryEscape(`{"room":{"state":{"lazy_load_members":true,"include_redundant_members":true},"timeline":{"limit":1}}}`)} {
			check(when+": sync"+q, sue.Must("GET", "/sync?timeout=0"+q, nil).Raw)
		}
		check(when+": event", sue.Try("GET", "/rooms/"+hstest.Esc(a.room)+"/event/"+hstest.Esc(hidden), nil).Raw)
		check(when+": context", sue.Try("GET", "/rooms/"+hstest.Esc(a.room)+"/context/"+hstest.Esc(hidden), nil).Raw)
	}
	look("before joining")
	sue.Join(a.room)
	first := sue.Sync(0)
	check("the sync after joining", first.Raw)
	look("after joining")
	if n := first.Get("rooms", "join", a.room, "unread_notifications", "highlight_count"); n != 0.0 {
		t.Errorf("highlight_count = %v for a mention that is not shown", n)
	}
	sid.Send(a.room, "WELCOME")
	next := sue.Until("a message", func(x hstest.Answer) bool { return strings.Contains(string(x.Raw), "WELCOME") })
	check("the next sync", next.Raw)
	w.s.Restart()
	look("after a restart")
}
