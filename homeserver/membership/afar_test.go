package membership_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/membership"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/test/hstest"
)

// section returns the stripped state of a room in `invite` or `knock`, by type, nil where the room is not there.
func section(a hstest.Answer, name, room string) map[string]map[string]any {
	list, ok := a.Get("rooms", name, room, name+"_state", "events").([]any)
	if !ok {
		return nil
	}
	out := map[string]map[string]any{}
	for _, e := range list {
		m := e.(map[string]any)
		if key := fmt.Sprint(m["state_key"]); key == "" {
			out[m["type"].(string)] = m
		} else {
			out[key] = m
		}
	}
	return out
}

// memberOf is what a server holds for true about a user in a room.
func memberOf(t *testing.T, s *hstest.Server, room string, user matrix.UserID) string {
	t.Helper()
	var m storage.Member
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) (err error) { m, _, err = tx.FindMember(matrix.RoomID(room), user); return err })
	if err != nil {
		t.Fatal(err)
	}
	return m.Membership
}

func want(t *testing.T, what string, a hstest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
	}
}

func TestInviteAfar_ShownUntilItIsRefused(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		b.Sync(0)
		room := a.CreateRoom(map[string]any{"name": "the name", "invite": []string{string(b.ID)}})
		if got := memberOf(t, s[0], room, b.ID); got != "invite" {
			t.Fatalf("at home the membership is %q", got)
		}
		got := section(b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", room) != nil }), "invite", room)
		for _, key := range []string{"m.room.create", "m.room.name", "m.room.join_rules", string(a.ID), string(b.ID)} {
			if got[key] == nil {
				t.Errorf("stripped state lacks %s: %v", key, got)
			}
		}
		s[1].Restart()
		w.connect(s[1], "two.example")
		fresh := b.On(s[1])
		fresh.Since = ""
		if section(fresh.Sync(0), "invite", room) == nil {
			t.Error("a restart has lost the invitation")
		}
		if section(fresh.Sync(0), "invite", room) != nil {
			t.Error("the invitation is told twice")
		}
		b = fresh
		b.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{"reason": "no"})
		if got := memberOf(t, s[0], room, b.ID); got != "leave" {
			t.Errorf("the room does not hear of the refusal: %q", got)
		}
		gone := b.Until("the end", func(a hstest.Answer) bool { return a.Get("rooms", "leave", room) != nil })
		list, _ := gone.Get("rooms", "leave", room, "timeline", "events").([]any)
		if len(list) != 1 || list[0].(map[string]any)["content"].(map[string]any)["membership"] != "leave" {
			t.Errorf("the end is told as %v", list)
		}
		all := b.Try("GET", "/sync", nil)
		if section(all, "invite", room) != nil {
			t.Error("a refused invitation is still shown")
		}
		b.Must("POST", "/rooms/"+hstest.Esc(room)+"/forget", map[string]any{})
		want(t, "leave again", b.Try("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{}), 403, matrix.CodeForbidden)
		a.Invite(room, b) // once more
		b.Until("the second invitation", func(a hstest.Answer) bool { return section(a, "invite", room) != nil })
	})
}

func TestLeaveAfar_OtherServerGoneOrDenied(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		for _, how := range []func(*wire){func(w *wire) { w.down["one.example"] = true }, func(w *wire) { w.denied["one.example"] = true }} {
			w.set(func(w *wire) { clear(w.down); clear(w.denied) })
			room := a.CreateRoom(map[string]any{"invite": []string{string(b.ID)}})
			b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", room) != nil })
			w.set(how)
			b.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
			b.Until("the end", func(a hstest.Answer) bool { return a.Get("rooms", "leave", room) != nil })
			if section(b.Try("GET", "/sync", nil), "invite", room) != nil {
				t.Error("the invitation is still shown")
			}
		}
	})
}

func TestJoinAfar_EveryRoomVersion(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[1].User("c")
		b.Must("PUT", "/profile/"+hstest.Esc(string(b.ID))+"/displayname", map[string]any{"displayname": "Bee"})
		for _, version := range matrix.RoomVersions() {
			room := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": version, "name": "in " + version})
			first := a.Send(room, "before")
			b.Must("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
			if got := memberOf(t, s[0], room, b.ID); got != "join" {
				t.Errorf("version %s: at the other server %s is %q", version, b.ID, got)
			}
			if got := memberOf(t, s[1], room, b.ID); got != "join" {
				t.Errorf("version %s: here %s is %q", version, b.ID, got)
			}
			if got := b.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.name", nil).String("name"); got != "in "+version {
				t.Errorf("version %s: the name of the room is %q", version, got)
			}
			if got := b.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(b.ID)), nil).String("displayname"); got != "Bee" {
				t.Errorf("version %s: the display name is %q", version, got)
			}
			w.asked()
			c.Join(room) // somebody of the server is inside: nobody else is asked
			if got := w.asked(); got != "" {
				t.Errorf("version %s: the second join asked %s", version, got)
			}
			if first == "" {
				t.Error("no event")
			}
		}
	})
}

func TestP277_TheNameFollowsWhenTheRoomIsKnown(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		b.Must("PUT", "/profile/"+hstest.Esc(string(b.ID))+"/displayname", map[string]any{"displayname": "Canary"})
		room := a.CreateRoom(map[string]any{"preset": "public_chat"})
		b.Must("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
		var e *storage.Event
		err := s[0].DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
			m, _, err := tx.FindMember(matrix.RoomID(room), b.ID)
			if err == nil {
				e, err = tx.LoadEvent(m.EventID)
			}
			return err
		})
		if err != nil || strings.Contains(string(e.JSON), "Canary") {
			t.Errorf("the join that the other server was sent says %s (%v)", e.JSON, err)
		}
	})
}

func TestP278_ViaADeniedServerAndAnApprovedOne(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		w.set(func(w *wire) { w.denied["denied.example"] = true; w.down["gone.example"] = true })
		room := a.CreateRoom(map[string]any{"preset": "public_chat"})
		b.Must("POST", "/join/"+hstest.Esc(room)+"?via=denied.example&via=gone.example&via=one.example", map[string]any{})
		if got := w.asked(); strings.Contains(got, "denied.example") || !strings.Contains(got, "gone.example make_join") {
			t.Errorf("asked: %s", got)
		}
		want(t, "only a denied server", b.Try("POST", "/join/!x:denied.example?via=denied.example", map[string]any{}), 403, matrix.CodeForbidden)
		want(t, "only a server that is gone", b.Try("POST", "/join/!x:gone.example?via=gone.example", map[string]any{}), 502, matrix.CodeUnknown)
		want(t, "a room that the server does not know", b.Try("POST", "/join/!x:one.example?via=one.example", map[string]any{}), 404, matrix.CodeNotFound)
		want(t, "nobody to ask", b.Try("POST", "/join/!x:two.example", map[string]any{}), 403, matrix.CodeForbidden)
		want(t, "a name that is none", b.Try("POST", "/join/"+hstest.Esc(room)+"?via=a/b", map[string]any{}), 400, matrix.CodeInvalidParam)
	})
}

func TestP277_ADirectoryNamesADeniedServer(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		room := matrix.RoomID(a.CreateRoom(map[string]any{"preset": "public_chat"}))
		w.set(func(w *wire) { w.denied["denied.example"] = true })
		party, err := s[1].Accounts.Party(context.Background(), b.ID)
		if err != nil {
			t.Fatal(err)
		}
		c := membership.Caller{UserID: b.ID, Subject: party, Residents: []matrix.ServerName{"one.example", "denied.example"}}
		if err := s[1].Members.Join(context.Background(), c, room, ""); code(err) != "403 M_FORBIDDEN" {
			t.Errorf("join: %v", err)
		}
		if err := s[1].Members.Knock(context.Background(), c, room, ""); code(err) != "403 M_FORBIDDEN" {
			t.Errorf("P281: knock: %v", err)
		}
		if got := w.asked(); got != "" {
			t.Errorf("asked: %s", got)
		}
		c.Residents = c.Residents[:1]
		if err := s[1].Members.Join(context.Background(), c, room, ""); err != nil {
			t.Errorf("join by a directory that names nobody who is denied: %v", err)
		}
	})
}

func TestR338_JoinedRoomHoldsADeniedServer(t *testing.T) {
	eachWire(t, 3, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[2].User("c")
		room := a.CreateRoom(map[string]any{"preset": "public_chat", "name": "canary-name"})
		c.Must("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
		s[1].WritePolicy("two.example/domains.yaml", "domains: {deny: [three.example]}\n")
		s[1].ReloadPolicy()
		b.Sync(0)
		want(t, "join", b.Try("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
		if got := w.asked(); !strings.HasSuffix(got, "one.example make_leave, one.example send_leave") {
			t.Errorf("asked: %s", got)
		}
		if got := memberOf(t, s[0], room, b.ID); got != "leave" {
			t.Errorf("the user is not out again: %q", got)
		}
		if raw := string(b.Sync(0).Raw); strings.Contains(raw, room) || strings.Contains(raw, "canary-name") {
			t.Errorf("the user was told of the room: %s", raw)
		}
		err := s[1].DB.Read(context.Background(), func(tx *storage.Tx) error { _, err := tx.LoadRoom(matrix.RoomID(room)); return err })
		if err == nil {
			t.Error("the room was stored")
		}
		// The same by an invitation: what is known before is enough to dial nobody.
		a.Invite(room, b)
		want(t, "join by invitation", b.Try("POST", "/join/"+hstest.Esc(room), map[string]any{}), 403, matrix.CodeForbidden)
	})
}

func TestF111_NothingIsSignedThatAnotherServerHasWritten(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		room := a.CreateRoom(map[string]any{"preset": "public_chat"})
		change := func(key string, value any) func(*federation.Template) {
			return func(t *federation.Template) {
				var e map[string]any
				_ = json.Unmarshal(t.Event, &e)
				e[key] = value
				t.Event, _ = json.Marshal(e)
			}
		}
		for what, fn := range map[string]func(*federation.Template){
			"type": change("type", "m.room.message"), "sender": change("sender", "@x:two.example"), "room": change("room_id", "!x:one.example"),
			"state key": change("state_key", string(a.ID)), "membership": change("content", map[string]any{"membership": "invite"}),
			"version": func(t *federation.Template) { t.RoomVersion = "98" }, "garbage": func(t *federation.Template) { t.Event = jsontext.Value(`[]`) },
		} {
			w.set(func(w *wire) { w.template = fn })
			w.asked()
			want(t, what, b.Try("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{}), 502, matrix.CodeUnknown)
			if got := w.asked(); strings.Contains(got, "send_join") {
				t.Errorf("%s: %s", what, got)
			}
		}
		w.set(func(w *wire) {
			w.template = change("content", map[string]any{"membership": "join", "displayname": "Evil", "third_party_invite": map[string]any{}})
		})
		b.Must("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
		if got := b.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(b.ID)), nil); got.Get("displayname") != nil || got.Get("third_party_invite") != nil {
			t.Errorf("the content of the template was signed: %s", got.Raw)
		}
	})
}

// far builds a membership event of a user of one server for a room of another, in its place in the graph.
func (w *wire) far(t *testing.T, s *hstest.Server, room string, user matrix.UserID, made *federation.Template, change func(*event.Draft)) *event.Event {
	t.Helper()
	v, _ := matrix.FindRoomVersion(made.RoomVersion)
	var e struct {
		Type     string           `json:"type"`
		Content  jsontext.Value   `json:"content"`
		Prev     []matrix.EventID `json:"prev_events"`
		Auth     []matrix.EventID `json:"auth_events"`
		Depth    int64            `json:"depth"`
		StateKey string           `json:"state_key"`
	}
	if err := json.Unmarshal(made.Event, &e); err != nil {
		t.Fatal(err)
	}
	d := event.Draft{RoomID: matrix.RoomID(room), Type: e.Type, StateKey: &e.StateKey, Sender: user, Content: e.Content, PrevEvents: e.Prev, AuthEvents: e.Auth, Depth: e.Depth, OriginServerTS: 1}
	if change != nil {
		change(&d)
	}
	out, err := event.Build(v, d)
	if err != nil {
		t.Fatal(err)
	}
	return signing.SignEvent(out, user.Server(), w.keys[user.Server()])
}

func code(err error) string {
	me, ok := err.(*matrix.Error)
	if !ok {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%d %s", me.Status, me.Code)
}

func TestF113_F114_A53_WhoSendsWhat(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		ctx := context.Background()
		a, b := s[0].User("a"), s[1].User("b")
		room := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		id, m := matrix.RoomID(room), s[0].Members
		for _, user := range []matrix.UserID{a.ID, "@x:three.example"} {
			if _, err := m.MakeJoin(ctx, "one.example", "two.example", id, user, []string{"11"}); code(err) != "403 M_FORBIDDEN" {
				t.Errorf("F114: make_join for %s: %v", user, err)
			}
		}
		made, err := m.MakeJoin(ctx, "one.example", "two.example", id, b.ID, []string{"11"})
		if err != nil {
			t.Fatal(err)
		}
		good := w.far(t, s[0], room, b.ID, made, nil)
		send := func(room matrix.RoomID, id matrix.EventID, e *event.Event) string {
			_, err := m.SendJoin(ctx, "one.example", "two.example", room, id, event.Federation(e), false)
			return code(err)
		}
		other := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		if got := send(matrix.RoomID(other), good.ID, good); got != "400 M_INVALID_PARAM" {
			t.Errorf("F113: another room in the path: %s", got)
		}
		if got := send(id, "$xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", good); got != "400 M_INVALID_PARAM" {
			t.Errorf("F113: another event in the path: %s", got)
		}
		if err := m.SendLeave(ctx, "one.example", "two.example", id, good.ID, event.Federation(good)); code(err) != "400 M_INVALID_PARAM" {
			t.Errorf("F113: a join by send_leave: %v", err)
		}
		if _, err := m.SendKnock(ctx, "one.example", "two.example", id, good.ID, event.Federation(good)); code(err) != "400 M_INVALID_PARAM" {
			t.Errorf("F113: a join by send_knock: %v", err)
		}
		foreign := w.far(t, s[0], room, a.ID, made, func(d *event.Draft) { key := string(a.ID); d.StateKey = &key })
		if got := send(id, foreign.ID, foreign); got != "403 M_FORBIDDEN" {
			t.Errorf("A53: a join of somebody of another server: %s", got)
		}
		behalf := w.far(t, s[0], room, b.ID, made, func(d *event.Draft) { key := "@c:two.example"; d.StateKey = &key })
		if got := send(id, behalf.ID, behalf); got != "403 M_FORBIDDEN" {
			t.Errorf("A53: a join on behalf of another: %s", got)
		}
		message := w.far(t, s[0], room, b.ID, made, func(d *event.Draft) { d.Type, d.StateKey = "m.room.message", nil })
		if got := send(id, message.ID, message); got != "400 M_INVALID_PARAM" {
			t.Errorf("a message by send_join: %s", got)
		}
		unsigned := good.WithSignatures(nil)
		if got := send(id, unsigned.ID, unsigned); !strings.HasPrefix(got, "40") {
			t.Errorf("without a signature: %s", got)
		}
		if got := memberOf(t, s[0], room, b.ID); got != "" {
			t.Errorf("something was stored: %q", got)
		}
		if got := send(id, good.ID, good); got != "<nil>" {
			t.Errorf("the join itself: %s", got)
		}
		if _, err := m.MakeJoin(ctx, "one.example", "two.example", "!unknown:one.example", b.ID, []string{"11"}); code(err) != "404 M_NOT_FOUND" {
			t.Errorf("a room that is not there: %v", err)
		}
	})
}

func TestA71_A75_RoomsThatAreNotForOthers(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		ctx := context.Background()
		a, b := s[0].User("a"), s[1].User("b")
		room := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11", "creation_content": map[string]any{"m.federate": false}})
		if _, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", matrix.RoomID(room), b.ID, matrix.RoomVersions()); code(err) != "403 M_FORBIDDEN" {
			t.Errorf("A71: make_join: %v", err)
		}
		w.asked()
		want(t, "A71: an invitation", a.Try("POST", "/rooms/"+hstest.Esc(room)+"/invite", map[string]any{"user_id": b.ID}), 403, matrix.CodeForbidden)
		if got := w.asked(); got != "" {
			t.Errorf("A71: asked %s", got)
		}
		open := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		_, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", matrix.RoomID(open), b.ID, []string{"1", "2", "12"})
		if me, ok := err.(*matrix.Error); !ok || me.Status != 400 || me.Code != matrix.CodeIncompatibleRoom || me.Extra["room_version"] != "11" {
			t.Errorf("A75: a version that the other server does not know: %v", err)
		}
		if _, err := s[0].Members.MakeJoin(ctx, "one.example", "two.example", matrix.RoomID(open), b.ID, nil); code(err) != "400 M_INCOMPATIBLE_ROOM_VERSION" {
			t.Errorf("A75: no version: %v", err)
		}
		for _, version := range []string{"99", "", "6.0"} {
			_, err := s[1].Members.ReceiveInvite(ctx, "two.example", "one.example", matrix.RoomID(open), "$x", federation.Invite{RoomVersion: version, Event: jsontext.Value("{}")})
			if code(err) != "400 M_INCOMPATIBLE_ROOM_VERSION" {
				t.Errorf("A75: an invitation in version %q: %v", version, err)
			}
		}
	})
}

func TestKnockAfar(t *testing.T) {
	eachWire(t, 2, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b := s[0].User("a"), s[1].User("b")
		for _, version := range []string{"7", "10", "12"} {
			room := a.CreateRoom(map[string]any{"room_version": version, "name": "door", "initial_state": []map[string]any{{"type": "m.room.join_rules", "content": map[string]any{"join_rule": "knock"}}}})
			b.Must("POST", "/knock/"+hstest.Esc(room)+"?via=one.example", map[string]any{"reason": "please"})
			if got := memberOf(t, s[0], room, b.ID); got != "knock" {
				t.Fatalf("version %s: %q", version, got)
			}
			got := section(b.Until("the knock", func(a hstest.Answer) bool { return section(a, "knock", room) != nil }), "knock", room)
			if got["m.room.name"] == nil || got[string(b.ID)]["content"].(map[string]any)["reason"] != "please" {
				t.Errorf("version %s: %v", version, got)
			}
			b.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", map[string]any{})
			if got := memberOf(t, s[0], room, b.ID); got != "leave" {
				t.Errorf("version %s: the knock stays: %q", version, got)
			}
			b.Must("POST", "/knock/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
			a.Invite(room, b)
			b.Until("the invitation", func(a hstest.Answer) bool { return section(a, "invite", room) != nil })
			want(t, "knock where one is invited", b.Try("POST", "/knock/"+hstest.Esc(room)+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
			b.Join(room)
			if section(b.Try("GET", "/sync", nil), "invite", room) != nil {
				t.Error("who is in is still invited")
			}
		}
		closed := a.CreateRoom(map[string]any{"room_version": "11"})
		want(t, "A70: knock on a room for the invited", b.Try("POST", "/knock/"+hstest.Esc(closed)+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
		w.set(func(w *wire) { w.denied["one.example"] = true })
		w.asked()
		want(t, "P281: knock by a denied server", b.Try("POST", "/knock/"+hstest.Esc(closed)+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
		if got := w.asked(); got != "" {
			t.Errorf("P281: asked %s", got)
		}
	})
}

func TestA66_RestrictedJoins(t *testing.T) {
	eachWire(t, 3, func(t *testing.T, w *wire, s []*hstest.Server) {
		a, b, c := s[0].User("a"), s[1].User("b"), s[2].User("c")
		for _, version := range []string{"8", "11", "12"} {
			space := a.CreateRoom(map[string]any{"preset": "public_chat", "room_version": version})
			rule := map[string]any{"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": space}}}
			room := a.CreateRoom(map[string]any{"room_version": version, "initial_state": []map[string]any{{"type": "m.room.join_rules", "content": rule}}})
			want(t, "who is not in the space", b.Try("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{}), 403, matrix.CodeForbidden)
			b.Must("POST", "/join/"+hstest.Esc(space)+"?via=one.example", map[string]any{})
			b.Must("POST", "/join/"+hstest.Esc(room)+"?via=one.example", map[string]any{})
			e := joinOf(t, s[0], room, b.ID)
			if via, _ := event.ContentString(e.Event, "join_authorised_via_users_server"); via != string(a.ID) {
				t.Errorf("version %s: let in by %q", version, via)
			}
			if names := signers(e.Event); !slices.Contains(names, "one.example") || !slices.Contains(names, "two.example") {
				t.Errorf("version %s: signed by %v", version, names)
			}
			// c is in the space; the second server is in the room, and can let nobody in: the first one must.
			c.Must("POST", "/join/"+hstest.Esc(space)+"?via=one.example", map[string]any{})
			a.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.power_levels", map[string]any{"invite": 50, "users": levels(version, a.ID)})
			w.asked()
			c.Must("POST", "/join/"+hstest.Esc(room)+"?via=two.example&via=one.example", map[string]any{})
			if got := w.asked(); !strings.Contains(got, "one.example send_join") {
				t.Errorf("version %s: %s", version, got)
			}
		}
	})
}

func levels(version string, user matrix.UserID) map[string]any {
	if version == "12" {
		return map[string]any{}
	}
	return map[string]any{string(user): 100}
}

// joinOf is the oldest join of a user that a server has.
func joinOf(t *testing.T, s *hstest.Server, room string, user matrix.UserID) *storage.Event {
	t.Helper()
	var out *storage.Event
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) error {
		m, _, err := tx.FindMember(matrix.RoomID(room), user)
		for id := m.EventID; err == nil && id != ""; {
			var e *storage.Event
			if e, err = tx.LoadEvent(id); err == nil {
				if event.Membership(e.Event) == "join" {
					out = e
				}
				id = e.Replaces
			}
		}
		return err
	})
	if err != nil || out == nil {
		t.Fatalf("join of %s: %v", user, err)
	}
	return out
}

func signers(e *event.Event) []string {
	var m map[string]any
	_ = json.Unmarshal(e.Signatures, &m)
	var out []string
	for name := range m {
		out = append(out, name)
	}
	return out
}
