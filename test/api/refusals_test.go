package api

import (
	"fmt"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// refused checks that an answer is a denial by policy, with reasons and the ID of the decision.
func refused(t *testing.T, what string, a hstest.Answer) {
	t.Helper()
	reasons, _ := a.Get("org.hansa.reasons").([]any)
	if a.Status != 403 || a.Code() != "M_FORBIDDEN" || a.String("org.hansa.decision_id") == "" || len(reasons) == 0 || a.String("error") == "" {
		t.Errorf("%s: %d %s, want 403 M_FORBIDDEN with reasons and the ID of a decision", what, a.Status, a.Raw)
	}
	for _, r := range reasons {
		m, _ := r.(map[string]any)
		if m["code"] == "" || m["message"] == "" {
			t.Errorf("%s: reason %v", what, r)
		}
	}
}

// hidden checks that an answer is that to something that does not exist, with the ID of a decision.
func hidden(t *testing.T, what string, a hstest.Answer) {
	t.Helper()
	if a.Status != 404 || a.Code() != "M_NOT_FOUND" || a.String("org.hansa.decision_id") == "" {
		t.Errorf("%s: %d %s, want 404 M_NOT_FOUND with the ID of a decision", what, a.Status, a.Raw)
	}
}

// is checks status and code.
func is(t *testing.T, what string, a hstest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
	}
}

// pair is somebody and somebody whom they may not know.
type pair struct {
	name string
	from *hstest.User
	to   *camp
}

// pairs are the ways in which people are kept apart: pools, tenants without an agreement, the wrong pool for an agreement, no pool.
func (w *camps) pairs() []pair {
	by := map[string]*camp{}
	for _, c := range w.all {
		by[c.name] = c
	}
	return []pair{
		{"from pool to pool", by["trading"].fellow, by["research"]},
		{"from no pool into a pool", by["staff"].fellow, by["research"]},
		{"from a pool to no pool", by["research"].fellow, by["staff"]},
		{"from tenant to tenant", by["staff"].fellow, by["abroad"]},
		{"from another tenant's wrong pool", by["abroad"].fellow, by["research"]},
		{"from the right pool to the wrong one", by["research"].guest, by["trading"]},
		{"from the right pool to no pool", by["research"].guest, by["staff"]},
	}
}

// eachPair makes the camps once per database and runs a test for every pair.
func eachPair(t *testing.T, fn func(t *testing.T, w *camps, p pair)) {
	t.Helper()
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		w := newCamps(t, s)
		w.marks()
		for _, p := range w.pairs() {
			t.Run(p.name, func(t *testing.T) { fn(t, w, p) })
		}
		w.untouched(t)
	})
}

// A pool's member is refused contact with one who is not in it, and a tenant's user with another tenant's outside the agreement, on every
// surface; what the specification lets be refused with words says why and which decision it was.
func TestLeak_RefusalsSayWhy(t *testing.T) {
	eachPair(t, func(t *testing.T, w *camps, p pair) {
		me, b := p.from, p.to.aims[0]
		own := me.CreateRoom(object{"preset": "public_chat"})
		mine := "/rooms/" + hstest.Esc(own)
		esc := hstest.Esc
		// Invitations, in whatever way, and direct chats.
		refused(t, "invite", me.Try("POST", mine+"/invite", object{"user_id": b.user}))
		refused(t, "invite as state", me.Try("PUT", mine+"/state/m.room.member/"+esc(b.user), object{"membership": "invite"}))
		refused(t, "direct chat", me.Try("POST", "/createRoom", object{"invite": []string{b.user}, "is_direct": true, "preset": "trusted_private_chat"}))
		refused(t, "room with one who is denied", me.Try("POST", "/createRoom", object{"invite": []string{b.user}}))
		// Rooms of theirs: the open ones by policy, the others are closed to everybody.
		for _, a := range p.to.aims {
			room, via := esc(a.room), "?via="+a.tenant+"&server_name="+a.tenant
			joins := []hstest.Answer{me.Try("POST", "/join/"+room, object{}), me.Try("POST", "/rooms/"+room+"/join", object{}), me.Try("POST", "/join/"+room+via, object{}),
				me.Try("PUT", "/rooms/"+room+"/state/m.room.member/"+esc(string(me.ID)), object{"membership": "join"})}
			for i, j := range joins {
				if strings.Contains(a.alias, "-open:") || strings.Contains(a.alias, "-old:") {
					refused(t, fmt.Sprintf("join of %s, way %d", a.alias, i), j)
				} else {
					is(t, fmt.Sprintf("join of %s, way %d", a.alias, i), j, 403, "M_FORBIDDEN")
				}
			}
			knock := me.Try("POST", "/knock/"+room+via, object{})
			if strings.Contains(a.alias, "-knock") {
				refused(t, "knock", knock)
				refused(t, "knock as state", me.Try("PUT", "/rooms/"+room+"/state/m.room.member/"+esc(string(me.ID)), object{"membership": "knock"}))
			} else {
				is(t, "knock on "+a.alias, knock, 403, "M_FORBIDDEN")
			}
			is(t, "join of "+a.alias, me.Try("POST", "/join/"+esc(a.alias), object{}), 404, "M_NOT_FOUND")
			is(t, a.alias, me.Try("GET", "/directory/room/"+esc(a.alias), nil), 404, "M_NOT_FOUND")
			is(t, "visibility of "+a.alias, me.Try("GET", "/directory/list/room/"+room, nil), 404, "M_NOT_FOUND")
			for _, path := range []string{"/state", "/state/m.room.name", "/members", "/joined_members", "/messages?dir=b", "/aliases"} {
				is(t, "peek into "+a.alias+path, me.Try("GET", "/rooms/"+room+path, nil), 403, "M_FORBIDDEN")
			}
			for _, path := range []string{"/event/", "/context/"} {
				is(t, "peek into "+a.alias+path, me.Try("GET", "/rooms/"+room+path+esc(a.event), nil), 404, "M_NOT_FOUND")
			}
			is(t, "typing in "+a.alias, me.Try("PUT", "/rooms/"+room+"/typing/"+esc(string(me.ID)), object{"typing": true}), 403, "M_FORBIDDEN")
			is(t, "receipt in "+a.alias, me.Try("POST", "/rooms/"+room+"/receipt/m.read/"+esc(a.event), object{}), 403, "M_FORBIDDEN")
			is(t, "message to "+a.alias, me.Try("PUT", "/rooms/"+room+"/send/m.room.message/"+me.Txn(), object{"msgtype": "m.text", "body": "x"}), 403, "M_FORBIDDEN")
		}
		// What they say of themselves.
		hidden(t, "profile", me.Try("GET", "/profile/"+esc(b.user), nil))
		hidden(t, "display name", me.Try("GET", "/profile/"+esc(b.user)+"/displayname", nil))
		hidden(t, "own field", me.Try("GET", "/profile/"+esc(b.user)+"/org.example.note", nil))
		hidden(t, "presence", me.Try("GET", "/presence/"+esc(b.user)+"/status", nil))
		media := "/_matrix/client/v1/media/download/" + b.server + "/" + b.media
		hidden(t, "media", me.Try("GET", media, nil))
		hidden(t, "media from the old path", me.Try("GET", "/_matrix/media/v3/download/"+b.server+"/"+b.media+"?allow_remote=true", nil))
		hidden(t, "thumbnail", me.Try("GET", "/_matrix/client/v1/media/thumbnail/"+b.server+"/"+b.media+"?width=10&height=10", nil))
		// Lists: they are not on them.
		for _, term := range []string{"canary", b.user, strings.TrimPrefix(strings.SplitN(b.user, ":", 2)[0], "@")} {
			for _, r := range list(me.Must("POST", "/user_directory/search", object{"search_term": term, "limit": 50}), "results") {
				if r["user_id"] == b.user {
					t.Errorf("the directory finds %s for %q", b.user, term)
				}
			}
		}
		for _, q := range []string{"", "?server=" + b.tenant} {
			for _, r := range list(me.Try("GET", "/publicRooms"+q, nil), "chunk") {
				for _, a := range p.to.aims {
					if r["room_id"] == a.room {
						t.Errorf("the room list%s has %s", q, a.alias)
					}
				}
			}
		}
		// Encryption: as if nobody were there.
		if q := me.Must("POST", "/keys/query", object{"device_keys": object{b.user: []string{}}}); fmt.Sprint(q.Get("device_keys"), q.Get("master_keys"), q.Get("failures")) != "map[] map[] map[]" {
			t.Errorf("keys: %s", q.Raw)
		}
		if q := me.Must("POST", "/keys/claim", object{"one_time_keys": object{b.user: object{b.device: "signed_curve25519"}}}); fmt.Sprint(q.Get("one_time_keys"), q.Get("failures")) != "map[] map[]" {
			t.Errorf("claim: %s", q.Raw)
		}
		me.Must("PUT", "/sendToDevice/m.room_key_request/"+me.Txn(), object{"messages": object{b.user: object{"*": object{"x": "y"}}}})
	})
}

func list(a hstest.Answer, name string) []map[string]any {
	raw, _ := a.Get(name).([]any)
	var out []map[string]any
	for _, r := range raw {
		if m, ok := r.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// twin makes an aim at things that do not exist out of one at things that do: names of the same form and length.
func (a aim) twin() aim {
	other := func(s string, from int) string { // another letter in place of each one
		b := []byte(s)
		for i := from; i < len(b) && b[i] != ':'; i++ {
			switch c := b[i]; {
			case c >= 'a' && c < 'z', c >= 'A' && c < 'Z', c >= '0' && c < '9':
				b[i]++
			case c == 'z', c == 'Z', c == '9':
				b[i] -= 3
			}
		}
		return string(b)
	}
	t := a
	t.user, t.room, t.alias, t.event, t.thread = other(a.user, 1), other(a.room, 1), other(a.alias, 1), other(a.event, 1), other(a.thread, 1)
	t.media, t.device, t.key = other(a.media, 0), other(a.device, 0), other(a.key, 0)
	return t
}

// neutral takes the names out of an answer that must not make a difference.
func neutral(a hstest.Answer, names aim) string {
	text := fmt.Sprint(a.Status, " ", string(a.Raw))
	for _, n := range []string{names.user, names.room, names.alias, names.event, names.thread, names.media, names.device, names.key} {
		text = strings.ReplaceAll(text, n, strings.Repeat("x", len(n)))
	}
	if id := a.String("org.hansa.decision_id"); id != "" {
		text = strings.ReplaceAll(text, id, "decision")
	}
	return text
}

// An answer about something that policy hides is to the byte the answer about something that does not exist, on every route. Where the two
// differ, the place is written down here with the reason.
func TestP330_DeniedIsAbsent(t *testing.T) {
	// Who asks to come in by the very name of a room that is open to others, or invites somebody by name, is told by policy why not.
	told := map[string]bool{"POST /_matrix/client/v3/rooms/{roomId}/join": true, "POST /_matrix/client/v3/join/{roomIdOrAlias}": true, "POST /_matrix/client/v3/knock/{roomIdOrAlias}": true,
		"POST /_matrix/client/v3/createRoom": true, "PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}": true,
		// The specification has a tenant's own names of accounts and aliases be unique, and says so.
		"POST /_matrix/client/v3/register": true, "GET /_matrix/client/v3/register/available": true, "PUT /_matrix/client/v3/directory/room/{roomAlias}": true}
	eachPair(t, func(t *testing.T, w *camps, p pair) {
		n := 0
		for i, a := range p.to.aims {
			absent := a.twin()
			for _, e := range w.s.API.Table() {
				name := e.Method + " " + e.Paths[0]
				if i > 0 && !aboutRooms(e) || strings.Contains(e.Paths[0], "/logout") || strings.Contains(e.Paths[0], "/room_keys/version") || strings.Contains(e.Paths[0], "/pushrules/") || strings.Contains(e.Paths[0], "/sync") ||
					!strings.Contains(e.Paths[0], "{") && e.Method == "GET" {
					continue
				}
				there, missing := calls(t, e, a, &w.txn), calls(t, e, absent, &w.txn)
				for k := range there {
					x, y := p.from.Try(there[k].method, there[k].path, there[k].body), p.from.Try(missing[k].method, missing[k].path, missing[k].body)
					n++
					if got, want := neutral(x, a), neutral(y, absent); got != want && !(told[name] && (x.Get("org.hansa.decision_id") != nil || x.Status < 403 || x.Status == 409)) && !public(name, x, y) {
						t.Errorf("%s %s:\nwhat is denied %s\nwhat is absent %s", p.from.ID, there[k], got, want)
					}
				}
			}
		}
		if n < 500 {
			t.Errorf("%d pairs of requests", n)
		}
	})
}

// public says of two answers that differ that they hold the same but for what makes every answer new.
func public(name string, x, y hstest.Answer) bool {
	switch name {
	case "POST /_matrix/media/v3/upload", "POST /_matrix/media/v1/create", "POST /_matrix/client/v3/delete_devices", "POST /_matrix/client/v3/account/password",
		"POST /_matrix/client/v3/account/deactivate", "DELETE /_matrix/client/v3/devices/{deviceId}", "GET /_synapse/admin/v1/register":
		return x.Status == y.Status && len(x.Raw) == len(y.Raw)
	}
	return false
}
