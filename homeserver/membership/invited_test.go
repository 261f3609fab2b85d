package membership_test

import (
	"context"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/test/hstest"
)

// invitation makes an invitation of a user of another server, as the room's server would send it.
func (w *wire) invitation(t *testing.T, s *hstest.Server, id string, sender, target matrix.UserID, change func(*event.Draft)) (*event.Event, federation.Invite) {
	t.Helper()
	key := string(target)
	e, err := s.Rooms.Compose(context.Background(), room.Draft{RoomID: matrix.RoomID(id), Sender: sender, Type: "m.room.member", StateKey: &key,
		Content: jsontext.Value(`{"membership":"invite"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		d := event.Draft{RoomID: e.RoomID, Type: e.Type, StateKey: e.StateKey, Sender: e.Sender, Content: e.Content, PrevEvents: e.PrevEvents,
			AuthEvents: e.AuthEvents, Depth: e.Depth, OriginServerTS: e.OriginServerTS}
		change(&d)
		if e, err = event.Build(e.Version, d); err != nil {
			t.Fatal(err)
		}
		e = signing.SignEvent(e, sender.Server(), w.keys[sender.Server()])
	}
	return e, federation.Invite{RoomVersion: e.Version.ID, Event: event.Federation(e), InviteRoomState: w.state(t, s, id)}
}

// state is what a server tells those whom it invites.
func (w *wire) state(t *testing.T, s *hstest.Server, id string) []jsontext.Value {
	t.Helper()
	var list []*storage.Event
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) error {
		byRoom, err := tx.LoadStateTypes([]matrix.RoomID{matrix.RoomID(id)}, []string{"m.room.create", "m.room.name", "m.room.join_rules"})
		list = byRoom[matrix.RoomID(id)]
		return err
	})
	if err == nil {
		list, err = s.Rooms.Sign(context.Background(), list)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []jsontext.Value
	for _, e := range list {
		out = append(out, event.Federation(e.Event))
	}
	return out
}

func TestReceiveInvite_SignsInvitationsOnly(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		ctx := context.Background()
		a, b := s[0].User("a"), s[1].User("b")
		id := a.CreateRoom(map[string]any{"room_version": "12", "name": "a room"})
		other := a.CreateRoom(map[string]any{"room_version": "12"})
		receive := func(as, origin matrix.ServerName, room string, id matrix.EventID, in federation.Invite) string {
			_, err := s[1].Members.ReceiveInvite(ctx, as, origin, matrix.RoomID(room), id, in)
			return code(err)
		}
		good, in := w.invitation(t, s[0], id, a.ID, b.ID, nil)
		const bad = "400 M_INVALID_PARAM"
		for what, got := range map[string]string{
			"F113: another room in the path":  receive("two.example", "one.example", other, good.ID, in),
			"F113: another event in the path": receive("two.example", "one.example", id, "$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", in),
			"F114: another origin":            receive("two.example", "three.example", id, good.ID, in),
			"another tenant":                  receive("one.example", "one.example", id, good.ID, in),
		} {
			if got != bad {
				t.Errorf("%s: %s", what, got)
			}
		}
		for what, change := range map[string]func(*event.Draft){
			"a join":              func(d *event.Draft) { d.Content = jsontext.Value(`{"membership":"join"}`) },
			"a ban":               func(d *event.Draft) { d.Content = jsontext.Value(`{"membership":"ban"}`) },
			"another type":        func(d *event.Draft) { d.Type = "m.room.power_levels" },
			"no state":            func(d *event.Draft) { d.StateKey = nil },
			"a user of elsewhere": func(d *event.Draft) { key := "@x:three.example"; d.StateKey = &key },
			"nobody":              func(d *event.Draft) { key := "b"; d.StateKey = &key },
		} {
			e, in := w.invitation(t, s[0], id, a.ID, b.ID, change)
			if got := receive("two.example", "one.example", id, e.ID, in); got != bad {
				t.Errorf("%s: %s", what, got)
			}
		}
		unsigned := in
		unsigned.Event = event.Federation(good.WithSignatures(nil))
		changed := in
		changed.Event = jsontext.Value(strings.Replace(string(in.Event), `"membership":"invite"`, `"displayname":"x","membership":"invite"`, 1))
		for what, in := range map[string]federation.Invite{"no signature": unsigned, "another content": changed} {
			if got := receive("two.example", "one.example", id, good.ID, in); got != bad {
				t.Errorf("%s: %s", what, got)
			}
		}
		withState := func(list ...jsontext.Value) federation.Invite { in := in; in.InviteRoomState = list; return in }
		if got := receive("two.example", "one.example", id, good.ID, withState()); got != "400 M_MISSING_PARAM" {
			t.Errorf("version 12 without a create event: %s", got)
		}
		if got := receive("two.example", "one.example", id, good.ID, withState(w.state(t, s[0], other)...)); got != bad {
			t.Errorf("version 12 with the state of another room: %s", got)
		}
		if got := receive("two.example", "one.example", id, good.ID, withState(jsontext.Value(`{"type":"m.room.create","sender":"@a:one.example","state_key":"","content":{}}`))); got != "400 M_MISSING_PARAM" {
			t.Errorf("version 12 with a create event state of old: %s", got)
		}
		if raw := string(b.Sync(0).Raw); strings.Contains(raw, id) {
			t.Errorf("something was stored: %s", raw)
		}
		in.InviteRoomState = append(in.InviteRoomState, jsontext.Value(`{"type":"m.room.topic","state_key":"","sender":"@a:one.example","content":{"topic":"of old"}}`))
		signed, err := s[1].Members.ReceiveInvite(ctx, "two.example", "one.example", matrix.RoomID(id), good.ID, in)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Parse(good.Version, signed)
		if err != nil || e.ID != good.ID || len(signers(e)) != 2 {
			t.Errorf("the answer is %s (%v)", signed, err)
		}
		if got := section(b.Sync(0), "invite", id); got["m.room.create"] == nil || got["m.room.topic"] == nil {
			t.Errorf("the user is told %v", got)
		}
		before := b.Since
		if got := receive("two.example", "one.example", id, good.ID, in); got != "<nil>" {
			t.Errorf("once more: %s", got)
		}
		if got := b.Sync(0); got.Get("rooms") != nil || before == "" {
			t.Errorf("what is sent again is told again: %s", got.Raw)
		}
	})
}

func TestReceiveInvite_OldVersionsWithOldStrippedState(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		for _, version := range []string{"3", "10", "11"} {
			id := a.CreateRoom(map[string]any{"room_version": version})
			e, in := w.invitation(t, s[0], id, a.ID, b.ID, nil)
			in.InviteRoomState = []jsontext.Value{
				jsontext.Value(`{"type":"m.room.name","state_key":"","sender":"@a:one.example","content":{"name":"old form"}}`),
				jsontext.Value(`{"type":"m.room.topic","state_key":"","sender":"nobody","content":{"topic":"x"}}`),
				jsontext.Value(`[]`), jsontext.Value(`{"type":"m.room.topic","sender":"@a:one.example","content":{}}`),
			}
			if _, err := s[1].Members.ReceiveInvite(context.Background(), "two.example", "one.example", matrix.RoomID(id), e.ID, in); err != nil {
				t.Fatalf("version %s: %v", version, err)
			}
			got := section(b.Sync(0), "invite", id)
			if len(got) != 2 || got["m.room.name"] == nil || got[string(b.ID)] == nil {
				t.Errorf("version %s: %v", version, got)
			}
		}
	})
}

func TestR351_DeniedAndAbsentUsersAlike(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[1].User("c")
		s[1].WritePolicy("two.example/whitelist.yaml", `whitelist: {enabled: true, users: ["`+string(c.ID)+`"]}`+"\n")
		s[1].ReloadPolicy()
		id := a.CreateRoom(map[string]any{"room_version": "11"})
		answer := func(target matrix.UserID) string {
			e, in := w.invitation(t, s[0], id, a.ID, target, nil)
			_, err := s[1].Members.ReceiveInvite(context.Background(), "two.example", "one.example", matrix.RoomID(id), e.ID, in)
			me, ok := err.(*matrix.Error)
			if !ok {
				return code(err)
			}
			if id, _ := me.Extra["org.hansa.decision_id"].(string); id == "" || len(me.Extra) != 1 {
				t.Errorf("the answer says %v", me.Extra)
			}
			return code(err) + me.Message
		}
		if denied, absent := answer(b.ID), answer("@nobody:two.example"); denied != absent || !strings.HasPrefix(denied, "403 M_FORBIDDEN") {
			t.Errorf("denied: %s, absent: %s", denied, absent)
		}
		if got := answer(c.ID); got != "<nil>" {
			t.Errorf("who is listed: %s", got)
		}
		if raw := string(b.Sync(0).Raw); strings.Contains(raw, id) {
			t.Error("who may not be invited was told")
		}
	})
}

func TestInviteAfar_WhatTheOtherServerSays(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		id := a.CreateRoom(map[string]any{"room_version": "11"})
		invite := func() hstest.Answer {
			return a.Try("POST", "/rooms/"+hstest.Esc(id)+"/invite", map[string]any{"user_id": b.ID})
		}
		for what, fn := range map[string]func([]byte) []byte{
			"another event": func(raw []byte) []byte {
				return []byte(strings.Replace(string(raw), `"membership":"invite"`, `"membership":"leave"`, 1))
			},
			"not signed": func(raw []byte) []byte {
				var e map[string]any
				_ = json.Unmarshal(raw, &e)
				delete(e["signatures"].(map[string]any), "two.example")
				out, _ := json.Marshal(e)
				return out
			},
			"nothing": func([]byte) []byte { return []byte("{}") },
		} {
			w.set(func(w *wire) { w.invited = fn })
			want(t, what, invite(), 502, matrix.CodeUnknown)
			if got := memberOf(t, s[0], id, b.ID); got != "" {
				t.Errorf("%s: the invitation is in the room: %q", what, got)
			}
		}
		w.set(func(w *wire) { w.invited = nil; w.down["two.example"] = true })
		want(t, "a server that is gone", invite(), 502, matrix.CodeUnknown)
		w.set(func(w *wire) { clear(w.down) })
		b.Must("PUT", "/user/"+hstest.Esc(string(b.ID))+"/account_data/m.invite_permission_config", map[string]any{"default_action": "block"})
		want(t, "a user who takes no invitations", invite(), 403, matrix.CodeInviteBlocked)
		b.Must("PUT", "/user/"+hstest.Esc(string(b.ID))+"/account_data/m.invite_permission_config", map[string]any{})
		want(t, "nobody of that name", a.Try("POST", "/rooms/"+hstest.Esc(id)+"/invite", map[string]any{"user_id": "@nobody:two.example"}), 403, matrix.CodeForbidden)
		if got := invite(); got.Status != 200 {
			t.Fatalf("at last: %s", got.Raw)
		}
		e := a.Must("GET", "/rooms/"+hstest.Esc(id)+"/state/m.room.member/"+hstest.Esc(string(b.ID))+"?format=event", nil)
		if e.String("content", "membership") != "invite" {
			t.Errorf("the room has %s", e.Raw)
		}
		w.asked()
		if got := invite(); got.Status != 200 || w.asked() != "" {
			t.Errorf("who is invited already: %s", got.Raw)
		}
	})
}

func TestP269_P270_P271_DeniedUsersOfOtherServers(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		s[0].WritePolicy("one.example/domains.yaml", "domains: {deny: [two.example]}\n")
		s[0].ReloadPolicy()
		id := a.CreateRoom(nil)
		want(t, "P269", a.Try("POST", "/rooms/"+hstest.Esc(id)+"/invite", map[string]any{"user_id": b.ID}), 403, matrix.CodeForbidden)
		want(t, "P270", a.Try("POST", "/createRoom", map[string]any{"invite": []string{string(b.ID)}, "name": "never"}), 403, matrix.CodeForbidden)
		want(t, "P271", a.Try("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.member/"+hstest.Esc(string(b.ID)), map[string]any{"membership": "invite"}), 403, matrix.CodeForbidden)
		if got := w.asked(); got != "" {
			t.Errorf("asked: %s", got)
		}
		if list, _ := a.Must("GET", "/joined_rooms", nil).Get("joined_rooms").([]any); len(list) != 1 {
			t.Errorf("rooms: %v", list)
		}
	})
}

func TestP279_AnOldInvitationIsWithdrawnWhenPolicyChanges(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		id := a.CreateRoom(map[string]any{"invite": []string{string(b.ID)}})
		b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", id) != nil })
		s[1].WritePolicy("two.example/domains.yaml", "domains: {deny: [one.example]}\n")
		s[1].WritePolicy("two.example/partners.yaml", `partners: {one.example: {state: suspended, pools: "*", features: "*"}}`+"\n")
		s[1].ReloadPolicy()
		if section(b.Try("GET", "/sync", nil), "invite", id) != nil {
			t.Error("the invitation is still shown")
		}
		w.asked()
		want(t, "accept it", b.Try("POST", "/join/"+hstest.Esc(id), map[string]any{}), 403, matrix.CodeForbidden)
		if got := w.asked(); got != "" {
			t.Errorf("asked: %s", got)
		}
		b.Since = ""
		b.Sync(0) // what is held back comes when policy allows it again
		s[1].WritePolicy("two.example/domains.yaml", "domains: {}\n")
		s[1].WritePolicy("two.example/partners.yaml", "partners: {}\n")
		s[1].ReloadPolicy()
		b.Until("the invitation once more", func(a hstest.Answer) bool { return section(a, "invite", id) != nil })
	})
}
