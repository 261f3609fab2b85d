package membership_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

func TestJoinAfar_AgainAfterEverybodyLeft(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[1].User("c")
		id := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11", "name": "first"})
		b.Must("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{})
		b.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		a.Must("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.name", map[string]any{"name": "second"})
		b.Sync(0)
		w.asked()
		b.Join(id) // the servers that were in the room are known still
		if got := w.asked(); !strings.Contains(got, "one.example send_join") {
			t.Errorf("asked: %s", got)
		}
		if got := b.Must("GET", "/rooms/"+hstest.Esc(id)+"/state/m.room.name", nil).String("name"); got != "second" {
			t.Errorf("the name of the room is %q", got)
		}
		if got := b.Sync(0); got.Get("rooms", "join", id) == nil {
			t.Errorf("the room is not told: %s", got.Raw)
		}
		c.Join(id)
		b.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		c.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		// Somebody is invited into the room that is known from former days.
		a.Invite(id, c)
		c.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", id) != nil })
		c.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		if section(c.Try("GET", "/sync", nil), "invite", id) != nil {
			t.Error("the refused invitation is shown")
		}
		a.Invite(id, c)
		c.Join(id)
		if section(c.Try("GET", "/sync", nil), "invite", id) != nil || c.Try("GET", "/sync", nil).Get("rooms", "join", id) == nil {
			t.Error("who has accepted is not in the room")
		}
	})
}

func TestLeave_AnInvitationThatRemainsFromFormerDays(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[1].User("c")
		id := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		b.Must("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{})
		a.Must("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.power_levels", map[string]any{"invite": 0, "users": map[string]any{string(a.ID): 100}})
		b.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		b.Join(id)
		b.Invite(id, c)
		b.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		c.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
		if section(c.Try("GET", "/sync", nil), "invite", id) != nil {
			t.Error("the refused invitation is shown")
		}
	})
}

func TestInviteAfar_EveryRoomVersion(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		for _, version := range matrix.RoomVersions() {
			id := a.CreateRoom(map[string]any{"room_version": version, "invite": []string{string(b.ID)}, "is_direct": true, "preset": "trusted_private_chat"})
			got := section(b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", id) != nil }), "invite", id)
			if own := got[string(b.ID)]; own == nil || own["content"].(map[string]any)["is_direct"] != true {
				t.Errorf("version %s: %v", version, got)
			}
			b.Join(id)
			if got := memberOf(t, s[0], id, b.ID); got != "join" {
				t.Errorf("version %s: %q", version, got)
			}
			b.Must("POST", "/rooms/"+hstest.Esc(id)+"/leave", map[string]any{})
			second := a.CreateRoom(map[string]any{"room_version": version, "invite": []string{string(b.ID)}})
			b.Must("POST", "/rooms/"+hstest.Esc(second)+"/leave", map[string]any{})
			if got := memberOf(t, s[0], second, b.ID); got != "leave" {
				t.Errorf("version %s: refused, and still %q", version, got)
			}
		}
	})
}

func TestJoinAfar_ManyAtOnce(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a := s[0].User("a")
		id := a.CreateRoom(map[string]any{"preset": "public_chat"})
		var users []*hstest.User
		for i := range 8 {
			users = append(users, s[1].User(fmt.Sprintf("u%d", i)))
		}
		var all sync.WaitGroup
		for _, u := range append(users, users...) {
			all.Go(func() {
				if got := u.Try("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{}); got.Status != 200 {
					t.Errorf("%s: %s", u.ID, got.Raw)
				}
			})
		}
		all.Wait()
		if got := strings.Count(w.asked(), "send_join"); got != 1 {
			t.Errorf("%d joins went through the other server", got)
		}
		for _, u := range users {
			if got := memberOf(t, s[1], id, u.ID); got != "join" {
				t.Errorf("%s: %q", u.ID, got)
			}
		}
	})
}

func TestR361_TenantsOfOneProcessAreWallsToOthers(t *testing.T) {
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w, s := newWire(t, database, 2, "uno.example")
			ctx := context.Background()
			a, b := s[0].User("a"), s[1].User("b")
			id := matrix.RoomID(a.CreateRoom(map[string]any{"preset": "public_chat"}))
			for _, other := range []matrix.RoomID{id, "!nothing:uno.example"} {
				if _, err := s[0].Members.MakeJoin(ctx, "uno.example", "two.example", other, b.ID, matrix.RoomVersions()); code(err) != "404 M_NOT_FOUND" {
					t.Errorf("a tenant that is not in %s: %v", other, err)
				}
			}
			u := s[0].User("@u:uno.example")
			u.Join(string(id))
			if _, err := s[0].Members.MakeJoin(ctx, "uno.example", "two.example", id, b.ID, matrix.RoomVersions()); err != nil {
				t.Errorf("a tenant that is in the room: %v", err)
			}
			// Every tenant in the room must approve who comes in.
			s[0].WritePolicy("uno.example/domains.yaml", "domains: {deny: [two.example]}\n")
			s[0].ReloadPolicy()
			if _, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", id, b.ID, matrix.RoomVersions()); code(err) != "403 M_FORBIDDEN" {
				t.Errorf("one of two tenants refuses: %v", err)
			}
			want(t, "the same by the client", b.Try("POST", "/join/"+hstest.Esc(string(id))+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
			if got := w.asked(); strings.Contains(got, "send_join") {
				t.Errorf("asked: %s", got)
			}
		})
	}
}

func TestA66_A67_WhoVouches(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		ctx := context.Background()
		a, b, low := s[0].User("a"), s[1].User("b"), s[0].User("low")
		space := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		rule := map[string]any{"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": space}}}
		id := a.CreateRoom(map[string]any{"room_version": "11", "initial_state": []map[string]any{{"type": "m.room.join_rules", "content": rule}},
			"power_level_content_override": map[string]any{"invite": 50}, "invite": []string{string(low.ID)}})
		low.Join(id)
		b.Must("POST", "/join/"+hstest.Esc(space)+"?via=one.example", map[string]any{})
		made, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", matrix.RoomID(id), b.ID, []string{"11"})
		if err != nil {
			t.Fatal(err)
		}
		send := func(content string) string {
			e := w.far(t, s[0], id, b.ID, made, func(d *event.Draft) { d.Content = jsontext.Value(content) })
			_, err := s[0].Members.SendJoin(ctx, "one.example", "two.example", matrix.RoomID(id), e.ID, event.Federation(e), false)
			return code(err)
		}
		for what, content := range map[string]string{
			"nobody vouches":                 `{"membership":"join"}`,
			"somebody below the level":       `{"membership":"join","join_authorised_via_users_server":"@low:one.example"}`,
			"somebody who is not there":      `{"membership":"join","join_authorised_via_users_server":"@x:one.example"}`,
			"somebody of the joining server": `{"membership":"join","join_authorised_via_users_server":"@b:two.example"}`,
			"no user ID":                     `{"membership":"join","join_authorised_via_users_server":"a"}`,
		} {
			if got := send(content); !strings.HasPrefix(got, "40") {
				t.Errorf("%s: %s", what, got)
			}
		}
		if got := memberOf(t, s[0], id, b.ID); got != "" {
			t.Errorf("something was let in: %q", got)
		}
		// Who has left the space meanwhile is not let in by a template of before.
		b.Must("POST", "/rooms/"+hstest.Esc(space)+"/leave", map[string]any{})
		err = s[0].Rooms.Look(ctx, matrix.RoomID(space), func(v room.View) {})
		if err != nil {
			t.Fatal(err)
		}
		a.Must("POST", "/rooms/"+hstest.Esc(space)+"/kick", map[string]any{"user_id": b.ID})
		if got := send(`{"membership":"join","join_authorised_via_users_server":"@a:one.example"}`); got != "403 M_FORBIDDEN" {
			t.Errorf("who is in no space any more: %s", got)
		}
		// A room that no condition is known of.
		far := map[string]any{"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": "!far:three.example"}}}
		a.Must("PUT", "/rooms/"+hstest.Esc(id)+"/state/m.room.join_rules", far)
		if _, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", matrix.RoomID(id), b.ID, []string{"11"}); code(err) != "400 M_UNABLE_TO_AUTHORISE_JOIN" {
			t.Errorf("an unknown condition: %v", err)
		}
		want(t, "the client is told", b.Try("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{}), 400, matrix.CodeUnableToAuthoriseJoin)
	})
}

func TestR334_InviteStateOfAStranger(t *testing.T) {
	eachWire(t, 3, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[2].User("c")
		id := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11", "power_level_content_override": map[string]any{"state_default": 0, "events": map[string]any{}}})
		c.Must("POST", "/join/"+hstest.Esc(id)+"?via=one.example", map[string]any{})
		made, err := s[0].Members.MakeJoin(context.Background(), "one.example", "three.example", matrix.RoomID(id), c.ID, []string{"11"})
		if err != nil {
			t.Fatal(err)
		}
		e := w.far(t, s[0], id, c.ID, made, func(d *event.Draft) {
			key := ""
			d.Type, d.StateKey, d.Content = "m.room.name", &key, jsontext.Value(`{"name":"canary-of-a-stranger"}`)
			d.AuthEvents = nil
			for _, typ := range []string{"m.room.create", "m.room.power_levels"} {
				d.AuthEvents = append(d.AuthEvents, stateID(t, s[0], id, typ, ""))
			}
			d.AuthEvents = append(d.AuthEvents, stateID(t, s[0], id, "m.room.member", string(c.ID)))
		})
		if errs := s[0].Rooms.Ingest(context.Background(), "one.example", "three.example", matrix.RoomID(id), [][]byte{event.Federation(e)}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		closed := `partners: {three.example: {state: suspended, pools: "*", features: "*"}}` + "\n"
		s[1].WritePolicy("two.example/partners.yaml", closed)
		s[1].ReloadPolicy()
		a.Invite(id, b)
		raw := string(b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", id) != nil }).Raw)
		if strings.Contains(raw, "canary-of-a-stranger") || strings.Contains(raw, "three.example") {
			t.Errorf("the invitation tells of a stranger: %s", raw)
		}
		w.asked()
		want(t, "accept it", b.Try("POST", "/join/"+hstest.Esc(id), map[string]any{}), 403, matrix.CodeForbidden)
		if got := w.asked(); got != "" {
			t.Errorf("asked: %s", got)
		}
		s[1].WritePolicy("two.example/partners.yaml", "partners: {}\n")
		s[1].ReloadPolicy()
		if got := section(b.Try("GET", "/sync", nil), "invite", id); got["m.room.name"] == nil {
			t.Errorf("after the approval the invitation tells %v", got)
		}
	})
}

func stateID(t *testing.T, s *hstest.Server, id, typ, key string) matrix.EventID {
	t.Helper()
	var e *storage.Event
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		e, err = tx.LoadStateEvent(matrix.RoomID(id), event.StateKey{Type: typ, Key: key})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

func TestReceiveInvite_RoomThatAnotherTenantIsIn(t *testing.T) {
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w, s := newWire(t, database, 2, "uno.example")
			a, u, b := s[0].User("a"), s[0].User("@u:uno.example"), s[1].User("b")
			id := b.CreateRoom(map[string]any{"preset": "public_chat", "name": "the name"})
			u.Must("POST", "/join/"+hstest.Esc(id)+"?via=two.example", map[string]any{})
			b.Invite(id, a)
			if got := section(a.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", id) != nil }), "invite", id); got["m.room.name"] == nil {
				t.Errorf("the invitation tells %v", got)
			}
			if got := memberOf(t, s[0], id, a.ID); got != "invite" {
				t.Errorf("the invitation is not in the room: %q", got)
			}
			w.asked()
			a.Join(id)
			if got := w.asked(); got != "" {
				t.Errorf("asked: %s", got)
			}
			if got := memberOf(t, s[0], id, a.ID); got != "join" {
				t.Errorf("after the join: %q", got)
			}
		})
	}
}
