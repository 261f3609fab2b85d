package federation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hansa/config"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/test/hstest"
)

// F113, F114, F115, A53: who may take part in a handshake, and how a request must look, over the network.
func TestF113_F114_F115_A53_Handshakes(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		o := f.Outsider(hstest.Outside)
		anna := f.Servers[0].User("anna")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		other := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		const v1, v2 = "/_matrix/federation/v1/", "/_matrix/federation/v2/"
		expect := func(what string, a hstest.Answer, status int, code string) {
			t.Helper()
			if a.Status != status || a.Code() != code {
				t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
			}
		}
		for _, verb := range []string{"make_join", "make_leave", "make_knock"} {
			for _, user := range []string{string(anna.ID), "@x:third.example"} {
				expect("F114 "+verb+" for "+user, o.Do("GET", "one.example", v1+verb+"/"+hstest.Esc(room)+"/"+hstest.Esc(user)+"?ver=11", nil), 403, matrix.CodeForbidden)
			}
		}
		g := enter(t, o, "guest", room, "11")
		id := hstest.Esc(string(g.join.ID))
		body := event.Federation(g.join)
		for _, verb := range []string{v2 + "send_join/", v2 + "send_leave/", v1 + "send_knock/"} {
			expect("F113 another room "+verb, o.Do("PUT", "one.example", verb+hstest.Esc(other)+"/"+id, body), 400, matrix.CodeInvalidParam)
			expect("F113 another event "+verb, o.Do("PUT", "one.example", verb+hstest.Esc(room)+"/"+hstest.Esc("$"+strings.Repeat("x", 43)), body), 400, matrix.CodeInvalidParam)
		}
		for _, verb := range []string{"send_join", "send_leave"} {
			expect("F115 "+verb, o.Do("PUT", "one.example", v1+verb+"/"+hstest.Esc(room)+"/"+id, body), 404, matrix.CodeUnrecognized)
		}
		key := string(anna.ID)
		forged := g.build(event.Draft{Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"leave"}`), Depth: g.join.Depth + 1,
			AuthEvents: g.join.AuthEvents, PrevEvents: []matrix.EventID{g.join.ID}})
		expect("A53 on behalf of another", o.Do("PUT", "one.example", v2+"send_leave/"+hstest.Esc(room)+"/"+hstest.Esc(string(forged.ID)), event.Federation(forged)), 403, matrix.CodeForbidden)
		if anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(key), nil).String("membership") != "join" {
			t.Error("A53: somebody was taken out of the room by another server")
		}
		unknown := o.Do("GET", "one.example", v1+"make_join/!nothing:one.example/@guest:outside.example?ver=11", nil)
		expect("a room that is not there", unknown, 404, matrix.CodeNotFound)
	})
}

// F135: a storm of joins of one room is slowed down, and the room stays usable.
func TestF135_JoinStorm(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) {
		o.Change = func(c *config.Config) { c.Limits.Enabled = true }
	})
	o := f.Outsider(hstest.Outside)
	anna := f.Servers[0].User("anna")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
	counts := map[int]int{}
	for i := range 400 {
		a := o.Do("GET", "one.example", "/_matrix/federation/v1/make_join/"+hstest.Esc(room)+"/"+hstest.Esc(fmt.Sprintf("@u%d:%s", i, o.Name))+"?ver=11", nil)
		counts[a.Status]++
		if a.Status == 429 && (a.Code() != matrix.CodeLimitExceeded || a.Get("retry_after_ms") == nil) {
			t.Fatalf("slowed down by %s", a.Raw)
		}
		if a.Status != 429 && a.Status != 200 {
			t.Fatalf("make_join: %d %s", a.Status, a.Raw)
		}
	}
	if counts[429] == 0 || counts[200] == 0 {
		t.Errorf("answers: %v", counts)
	}
	anna.Send(room, "still here")
}

// A66: a restricted join that nobody vouches for, or that another server says it vouches for, is not let in.
func TestA66_RestrictedJoinsByHand(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		o := f.Outsider(hstest.Outside)
		anna := f.Servers[0].User("anna")
		space := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		rule := map[string]any{"join_rule": "restricted", "allow": []map[string]any{{"type": "m.room_membership", "room_id": space}}}
		room := anna.CreateRoom(map[string]any{"room_version": "11", "initial_state": []map[string]any{{"type": "m.room.join_rules", "content": rule}}})
		guest := enter(t, o, "guest", space, "11")
		made := o.Do("GET", "one.example", "/_matrix/federation/v1/make_join/"+hstest.Esc(room)+"/"+hstest.Esc(string(guest.id))+"?ver=11", nil)
		if made.String("event", "content", "join_authorised_via_users_server") != string(anna.ID) {
			t.Fatalf("the template is %s", made.Raw)
		}
		var template struct {
			Event struct {
				Auth  json.RawMessage `json:"auth_events"`
				Prev  json.RawMessage `json:"prev_events"`
				Depth int64           `json:"depth"`
			} `json:"event"`
		}
		if err := json.Unmarshal(made.Raw, &template); err != nil {
			t.Fatal(err)
		}
		key := string(guest.id)
		inside := *guest
		inside.room = matrix.RoomID(room)
		send := func(content string) hstest.Answer {
			e := inside.build(event.Draft{Type: "m.room.member", StateKey: &key, Content: []byte(content), Depth: template.Event.Depth,
				AuthEvents: references(t, template.Event.Auth), PrevEvents: references(t, template.Event.Prev)})
			return o.Do("PUT", "one.example", "/_matrix/federation/v2/send_join/"+hstest.Esc(room)+"/"+hstest.Esc(string(e.ID)), event.Federation(e))
		}
		for what, content := range map[string]string{
			"nobody vouches":            `{"membership":"join"}`,
			"the joining server itself": `{"membership":"join","join_authorised_via_users_server":"@guest:outside.example"}`,
			"somebody of a third":       `{"membership":"join","join_authorised_via_users_server":"@x:third.example"}`,
		} {
			if a := send(content); a.Status != 403 && a.Status != 400 {
				t.Errorf("%s: %d %s", what, a.Status, a.Raw)
			}
		}
		good := send(`{"membership":"join","join_authorised_via_users_server":"` + string(anna.ID) + `"}`)
		if good.Status != 200 || good.Get("event", "signatures", "one.example") == nil {
			t.Errorf("the join itself: %d %s", good.Status, good.Raw)
		}
	})
}
