package federation_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// relays runs a test with three servers on each database: one.example has an agreement with two.example only, which is open to everybody.
func relays(t *testing.T, fn func(t *testing.T, f *hstest.Federation)) {
	t.Helper()
	for _, db := range storagetest.Databases() {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			fn(t, hstest.NewFederation(t, 3, func(i int, o *hstest.Options) {
				o.Database = db
				if i == 0 {
					o.Change = func(c *config.Config) { c.Federation.DefaultPartners = []string{} }
				}
			}))
		})
	}
}

// partner changes what one.example has agreed with another server.
func partner(t *testing.T, s *hstest.Server, action string, other matrix.ServerName) {
	t.Helper()
	by := agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator"}}
	owner := s.Config.Tenants[0].Name
	var err error
	switch ctx := context.Background(); action {
	case "approve":
		_, err = s.Agreements.Approve(ctx, by, owner, other, agreement.Terms{})
	case "suspend":
		_, err = s.Agreements.Suspend(ctx, by, owner, other)
	case "end":
		_, err = s.Agreements.End(ctx, by, owner, other)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", action, other, err)
	}
}

// nowhere fails the test when any surface shows a reader one of the canaries.
func nowhere(t *testing.T, u *hstest.User, room string, canaries ...string) {
	t.Helper()
	base := "/rooms/" + hstest.Esc(room)
	answers := map[string]hstest.Answer{
		"sync":           u.Sync(0, "full_state=true"),
		"first sync":     u.Try("GET", "/sync?timeout=0", nil),
		"search":         u.Try("POST", "/search", object{"search_categories": object{"room_events": object{"search_term": "canary"}}}),
		"user directory": u.Try("POST", "/user_directory/search", object{"search_term": "carl"}),
	}
	for _, path := range []string{"/messages?dir=b&limit=100", "/messages?dir=f&limit=100", "/members", "/joined_members", "/state", "/state/m.room.topic", "/state/m.room.name",
		"/state/m.room.power_levels", "/initialSync", "/aliases"} {
		answers[path] = u.Try("GET", base+path, nil)
	}
	for what, a := range answers {
		for _, canary := range canaries {
			if strings.Contains(string(a.Raw), canary) {
				t.Errorf("%s shows %q: %d %.2000s", what, canary, a.Status, a.Raw)
			}
		}
	}
}

// denied checks a refusal by policy.
func denied(t *testing.T, a hstest.Answer, what string) {
	t.Helper()
	if a.Status != 403 || a.Code() != "M_FORBIDDEN" || a.String("org.hansa.decision_id") == "" {
		t.Errorf("%s: %d %s, want 403 with a decision", what, a.Status, a.Raw)
	}
}

func say(u *hstest.User, room, body string) hstest.Answer {
	return u.Try("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+u.Txn(), object{"msgtype": "m.text", "body": body})
}

// A room of a partner, in which our people have no power, and into which the partner lets a server that we do not approve: what that one says is
// shown nowhere, our people cannot send, and both end when there is an agreement.
func TestR334_R335_R339_R341_R359_Relay(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		anna, bob, carl := one.User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := bob.CreateRoom(object{"preset": "public_chat", "name": "canal house", "power_level_content_override": object{"state_default": 0}})
		anna.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("anna's coming", membership(room, anna.ID, "join"))
		anna.Send(room, "all friends")
		bob.Until("anna's words", has(room, "all friends"))

		carl.Must("PUT", "/profile/"+hstest.Esc(string(carl.ID))+"/displayname", object{"displayname": "canary name"})
		carl.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("carl's coming", membership(room, carl.ID, "join"))
		first := carl.Send(room, "canary message")
		carl.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "canary topic"})
		bob.Until("carl's words", has(room, "canary message"))
		carl.Must("PUT", "/rooms/"+hstest.Esc(room)+"/send/m.reaction/"+carl.Txn(), object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": first, "key": "canary key"}})
		bob.Send(room, "of a partner")
		a := anna.Until("the partner's words", has(room, "of a partner"))
		nowhere(t, anna, room, "canary", "carl")
		if n := a.Get("rooms", "join", room, "summary", "m.joined_member_count"); n != nil && n.(float64) > 2 {
			t.Errorf("%v members are counted, want the two whom anna may know of", n)
		}
		for _, path := range []string{"/event/", "/context/", "/relations/"} {
			if a := anna.Try("GET", "/rooms/"+hstest.Esc(room)+path+hstest.Esc(first), nil); a.Status == 200 || strings.Contains(string(a.Raw), "canary") {
				t.Errorf("%s of a withheld event: %d %s", path, a.Status, a.Raw)
			}
		}
		denied(t, say(anna, room, "to strangers"), "our message next to a stranger")
		denied(t, anna.Try("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "x"}), "our state next to a stranger")
		one.Restart()
		anna = anna.On(one)
		nowhere(t, anna, room, "canary", "carl")
		denied(t, say(anna, room, "to strangers"), "our message next to a stranger after a restart")

		partner(t, one, "approve", "three.example")
		anna.Until("what was withheld", has(room, "canary message"))
		bob.Send(room, "all partners now")
		anna.Until("the partner's words", has(room, "all partners now"))
		page := string(anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil).Raw)
		if n := strings.Count(page, `"canary message"`); n != 1 {
			t.Errorf("the released message is in the history %d times, want once", n)
		}
		members := string(anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/members", nil).Raw)
		if !strings.Contains(members, "canary name") {
			t.Errorf("the new partner's user is not among the members: %s", members)
		}
		if a := say(anna, room, "welcome"); a.Status != 200 {
			t.Errorf("our message among partners: %d %s", a.Status, a.Raw)
		}
		carl.Until("anna's words", has(room, "welcome"))
	})
}

// A room of ours: the server that a partner lets in is put out, and onto the room's list of denied servers.
func TestR342_R343_PutOut(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		anna, bob, carl := one.User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := anna.CreateRoom(object{"preset": "public_chat"})
		bob.Must("POST", via(room, one), object{})
		anna.Until("bob's coming", membership(room, bob.ID, "join"))
		if a := carl.Try("POST", via(room, one), object{}); a.Status != 403 {
			t.Errorf("join by way of us: %d %s, want 403", a.Status, a.Raw)
		}
		carl.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("carl's coming", membership(room, carl.ID, "join"))
		bob.Send(room, "look who is here")
		anna.Until("the partner's words", has(room, "look who is here"))
		hstest.Await(t, "carl's removal", func() bool { // which may have come to bob together with carl's coming
			member := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(carl.ID)), nil)
			return member.String("membership") == "leave"
		})
		hstest.Await(t, "the server ACL, which comes after the removal", func() bool {
			acl := anna.Try("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.server_acl", nil)
			return acl.Status == 200 && strings.Contains(string(acl.Raw), `"deny":["three.example"]`)
		})
		anna.Send(room, "alone again")
		bob.Until("anna's words", has(room, "alone again"))
		nowhere(t, anna, room, "carl")
	})
}

// Nobody of ours gets into a room of a partner that holds a stranger, and what was told of the room is not kept.
func TestR338_JoinNextToAStranger(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		anna, bob, carl := one.User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		carl.Must("PUT", "/profile/"+hstest.Esc(string(carl.ID))+"/displayname", object{"displayname": "canary name"})
		room := bob.CreateRoom(object{"preset": "public_chat", "topic": "canary topic"})
		carl.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("carl's coming", membership(room, carl.ID, "join"))
		if a := anna.Try("POST", via(room, f.Servers[1]), object{}); a.Status != 403 {
			t.Errorf("join next to a stranger: %d %s, want 403", a.Status, a.Raw)
		}
		if a := anna.Try("POST", "/join/"+hstest.Esc(room)+"?via="+url.QueryEscape("three.example"), object{}); a.Status != 403 {
			t.Errorf("join by way of a stranger: %d %s, want 403", a.Status, a.Raw)
		}
		nowhere(t, anna, room, "canary", "carl")
		if a := anna.Sync(0); a.Get("rooms", "join", room) != nil {
			t.Error("anna is in the room all the same")
		}
		bob.Until("anna is out", func(a hstest.Answer) bool {
			m := bob.Try("GET", "/rooms/"+hstest.Esc(room)+"/joined_members", nil)
			return !strings.Contains(string(m.Raw), string(anna.ID))
		})
	})
}

// A suspension: refused at once in both directions, our people cannot send to them any more, and after the approval all is as before.
func TestR357_R358_Suspension(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		anna, bob := one.User("anna"), f.Servers[1].User("bob")
		room := bob.CreateRoom(object{"preset": "public_chat"})
		anna.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("anna's coming", membership(room, anna.ID, "join"))
		partner(t, one, "suspend", "two.example")
		denied(t, say(anna, room, "x"), "our message to a suspended partner")
		bob.Send(room, "while suspended")
		denied(t, anna.Try("POST", "/rooms/"+hstest.Esc(room)+"/invite", object{"user_id": "@barbara:two.example"}), "our invitation of a suspended partner's user")
		nowhere(t, anna, room, "while suspended")
		partner(t, one, "approve", "two.example")
		bob.Send(room, "after it")
		anna.Until("words after the suspension", has(room, "after it"))
		if page := anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil); strings.Count(string(page.Raw), `"while suspended"`) != 1 {
			t.Errorf("what was said during the suspension is not in the history once: %s", page.Raw)
		}
		if a := say(anna, room, "good to hear you"); a.Status != 200 {
			t.Errorf("our message after the suspension: %d %s", a.Status, a.Raw)
		}
		bob.Until("anna's words", has(room, "good to hear you"))
		partner(t, one, "end", "two.example")
		anna.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		bob.Until("anna's leaving", membership(room, anna.ID, "leave"))
	})
}

// A room in which a stranger once spoke: what comes with the invitation, with the state and with the history shows nothing of that; with an
// agreement it does.
func TestR335_R337_R350_HistoryOfAStranger(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		f.Servers[1].WritePolicy("two.example/rooms.yaml", "rooms: {partner_history: [shared, invited, joined]}\n")
		f.Servers[1].ReloadPolicy()
		anna, bob, carl := one.User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := bob.CreateRoom(object{"preset": "public_chat", "power_level_content_override": object{"state_default": 0}})
		bob.Send(room, "before the stranger")
		carl.Must("PUT", "/profile/"+hstest.Esc(string(carl.ID))+"/displayname", object{"displayname": "canary name"})
		carl.Must("POST", via(room, f.Servers[1]), object{})
		carl.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "canary topic"})
		carl.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/org.example.state/x", object{"text": "canary state"})
		carl.Send(room, "canary message")
		bob.Until("carl's words", has(room, "canary message"))
		bob.Send(room, "answer to the stranger")
		carl.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{"reason": "canary reason"})
		bob.Until("carl's leaving", membership(room, carl.ID, "leave"))
		bob.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "of a partner"})
		bob.Send(room, "after the stranger")

		bob.Must("POST", "/rooms/"+hstest.Esc(room)+"/invite", object{"user_id": string(anna.ID)})
		anna.Until("bob's invitation", func(a hstest.Answer) bool { return a.Get("rooms", "invite", room) != nil })
		nowhere(t, anna, room, "canary", "carl")
		anna.Must("POST", via(room, f.Servers[1]), object{})
		bob.Until("anna's coming", membership(room, anna.ID, "join"))
		var history strings.Builder
		from := ""
		for range 20 {
			a := anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=3"+from, nil)
			history.Write(a.Raw)
			end := a.String("end")
			if end == "" {
				break
			}
			from = "&from=" + url.QueryEscape(end)
		}
		for _, want := range []string{"before the stranger", "answer to the stranger", "after the stranger"} {
			if !strings.Contains(history.String(), want) {
				t.Errorf("the history lacks %q: %.3000s", want, history.String())
			}
		}
		if strings.Contains(history.String(), "canary") || strings.Contains(history.String(), "carl") {
			t.Errorf("the history shows a stranger: %.3000s", history.String())
		}
		nowhere(t, anna, room, "canary", "carl")
		if a := say(anna, room, "hello"); a.Status != 200 {
			t.Errorf("our message where the stranger is gone: %d %s", a.Status, a.Raw)
		}
		partner(t, one, "approve", "three.example")
		hstest.Await(t, "the new partner's words in the history", func() bool {
			a := anna.Must("GET", "/rooms/"+hstest.Esc(room)+"/messages?dir=b&limit=100", nil)
			return strings.Count(string(a.Raw), `"canary message"`) == 1
		})
	})
}

// What a stranger makes of a room's state counts, and is told without what it says: the same to who was there before and to who looks now.
func TestR339_StateIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	relays(t, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		partner(t, one, "approve", "two.example")
		anna, bob, carl := one.User("anna"), f.Servers[1].User("bob"), f.Servers[2].User("carl")
		room := bob.CreateRoom(object{"preset": "public_chat", "topic": "of a partner", "power_level_content_override": object{
			"events": object{"m.room.topic": 0, "m.room.power_levels": 100}, "users": object{}}, "room_version": "12"})
		anna.Must("POST", via(room, f.Servers[1]), object{})
		// topic is what a client knows after all syncs so far.
		topic := any(nil)
		learn := func(a hstest.Answer) bool {
			state, _ := a.Get("rooms", "join", room, "state", "events").([]any)
			for _, e := range a.Timeline(room) {
				state = append(state, e)
			}
			for _, v := range state {
				if e, ok := v.(object); ok && e["type"] == "m.room.topic" {
					topic = e["content"].(object)["topic"]
				}
			}
			return true
		}
		anna.Until("the topic", func(a hstest.Answer) bool { learn(a); return topic == "of a partner" })
		carl.Must("POST", via(room, f.Servers[1]), object{})
		carl.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", object{"topic": "canary topic"})
		bob.Until("carl's topic", func(a hstest.Answer) bool {
			for _, e := range a.Timeline(room) {
				if e["type"] == "m.room.topic" && e["sender"] == string(carl.ID) {
					return true
				}
			}
			return false
		})
		bob.Send(room, "done")
		anna.Until("bob's words", func(a hstest.Answer) bool { learn(a); return has(room, "done")(a) })
		learn(anna.Sync(0))
		now := anna.Try("GET", "/rooms/"+hstest.Esc(room)+"/state/m.room.topic", nil)
		if now.Status == 200 && now.JSON["topic"] != topic || now.Status != 200 && topic != nil {
			t.Errorf("/state says %d %s, the syncs have said %v", now.Status, now.Raw, topic)
		}
		if topic == "of a partner" || topic == "canary topic" {
			t.Errorf("the topic is %v", topic)
		}
		fresh := anna.Try("GET", "/sync?timeout=0&full_state=true", nil)
		if strings.Contains(string(fresh.Raw), "canary") || strings.Contains(string(fresh.Raw), "of a partner") {
			t.Errorf("a first sync tells of the topic: %.2000s", fresh.Raw)
		}
		partner(t, one, "approve", "three.example")
		anna.Until("the new partner's topic", func(a hstest.Answer) bool { learn(a); return topic == "canary topic" })
	})
}
