package room_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// abroad is a room that another server has made.
type abroad struct {
	*town
	v      *matrix.RoomVersion
	room   matrix.RoomID
	state  map[event.StateKey]*event.Event
	events []*event.Event
	// before is the state before each event.
	before map[matrix.EventID][]*event.Event
}

// newAbroad makes a public room of fred's.
func newAbroad(c *town, version string, more ...string) *abroad {
	c.t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	r := &abroad{town: c, v: v, state: map[event.StateKey]*event.Event{}, before: map[matrix.EventID][]*event.Event{}}
	if !v.RoomIDHash {
		r.room = matrix.RoomID("!abroad" + version + ":far.example")
	}
	content := map[string]any{"room_version": version}
	if v.CreatorField {
		content["creator"] = string(fred)
	}
	for _, m := range more {
		content[m] = true
	}
	create := r.add(fred, "m.room.create", ptr(""), content)
	r.room = create.RoomID
	r.add(fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join"})
	levels := map[string]any{"users": map[string]any{string(fred): 100}}
	if v.PrivilegedCreators {
		levels["users"] = map[string]any{}
	}
	r.add(fred, "m.room.power_levels", ptr(""), levels)
	r.add(fred, "m.room.join_rules", ptr(""), map[string]any{"join_rule": "public"})
	r.add(fred, "m.room.history_visibility", ptr(""), map[string]any{"history_visibility": "shared"})
	return r
}

// add is the next event of the room.
func (r *abroad) add(sender matrix.UserID, typ string, key *string, content map[string]any) *event.Event {
	r.t.Helper()
	e := r.build(sender, typ, key, content)
	for _, s := range r.state {
		r.before[e.ID] = append(r.before[e.ID], s)
	}
	r.events = append(r.events, e)
	if key != nil {
		r.state[e.Key()] = e
	}
	return e
}

func (r *abroad) build(sender matrix.UserID, typ string, key *string, content map[string]any) *event.Event {
	r.t.Helper()
	d := event.Draft{RoomID: r.room, Type: typ, StateKey: key, Sender: sender, Content: room.Object(content), Depth: int64(len(r.events) + 1),
		OriginServerTS: 1_700_000_000_000 + int64(len(r.events))}
	if typ == auth.TypeCreate && r.v.RoomIDHash {
		d.RoomID = ""
	}
	if !r.v.EventIDHash {
		d.EventID = matrix.EventID(fmt.Sprintf("$%d:%s", len(r.events), sender.Server()))
	}
	if n := len(r.events); n > 0 {
		d.PrevEvents = []matrix.EventID{r.events[n-1].ID}
	}
	for _, k := range auth.Needed(r.v, typ, key, sender, d.Content) {
		if e := r.state[k]; e != nil {
			d.AuthEvents = append(d.AuthEvents, e.ID)
		}
	}
	e, err := event.Build(r.v, d)
	r.must(err)
	if k, ok := r.keys[sender.Server()]; ok {
		return signing.SignEvent(e, sender.Server(), k)
	}
	return signing.SignEvent(e, sender.Server(), r.others[sender.Server()].key)
}

// answer is what the far server answers to the join of a user of ours.
func (r *abroad) answer(user matrix.UserID) room.Adoption {
	r.t.Helper()
	a := room.Adoption{RoomID: r.room, Version: r.v.ID, As: user.Server(), Via: "far.example"}
	for _, e := range r.state {
		a.State = append(a.State, event.Federation(e))
	}
	for _, e := range r.events {
		if e.StateKey != nil {
			a.Auth = append(a.Auth, event.Federation(e))
		}
	}
	a.Event = event.Federation(r.add(user, "m.room.member", ptr(string(user)), map[string]any{"membership": "join"}))
	return a
}

// serve lets the far server answer for the room.
func (r *abroad) serve() *distant {
	d := &distant{events: map[matrix.EventID]*event.Event{}, calls: map[string]int{}}
	d.put(r.events...)
	d.state = func(at matrix.EventID) (state, chain []matrix.EventID) {
		for _, e := range r.before[at] {
			state = append(state, e.ID)
		}
		return state, nil
	}
	r.remote = d
	r.fresh()
	return d
}

func eachAbroad(t *testing.T, versions []string, fn func(t *testing.T, r *abroad)) {
	t.Helper()
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		for _, v := range versions {
			fn(t, newAbroad(c, v))
		}
	})
}

func TestAdopt_EntersTheRoom(t *testing.T) {
	eachAbroad(t, []string{"1", "6", "11", "12"}, func(t *testing.T, r *abroad) {
		r.add(fred, "m.room.topic", ptr(""), map[string]any{"topic": "old"})
		said := r.add(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "before"})
		topic := r.add(fred, "m.room.topic", ptr(""), map[string]any{"topic": "new"})
		a := r.answer(user("anna"))
		d := r.serve()
		r.must(r.rooms.Adopt(r.ctx(), a))
		r.must(r.rooms.Adopt(r.ctx(), a)) // the answer to a request that was repeated
		if got := r.stateID(r.room, "m.room.topic", ""); got != topic.ID {
			t.Errorf("version %s: topic %s, want %s", r.v.ID, got, topic.ID)
		}
		list := r.timeline(r.room)
		if n := len(list); n == 0 || list[n-1].Type != "m.room.member" || list[n-1].Sender != user("anna") {
			t.Errorf("version %s: the timeline has %d events and does not end with the join", r.v.ID, n)
		}
		if !slices.ContainsFunc(list, func(e *storage.Event) bool { return e.Pos > 0 }) {
			t.Error("nothing in the log")
		}
		if _, err := r.say(r.room, user("anna"), "hello"); err != nil {
			t.Errorf("version %s: send: %v", r.v.ID, err)
		}
		// What was said before comes when somebody asks for it.
		for range 10 {
			more, err := r.backfill(r.room, 3)
			r.must(err)
			if !more {
				break
			}
		}
		r.shows(r.room, r.events...)
		if got := r.event(said.ID); got.Flags != storage.Backfilled || got.Pos >= 0 {
			t.Errorf("version %s: history is marked %b at %d", r.v.ID, got.Flags, got.Pos)
		}
		calls := d.calls["backfill"]
		if more, err := r.backfill(r.room, 3); err != nil || more || d.calls["backfill"] != calls {
			t.Errorf("version %s: history goes on: %v, %v", r.v.ID, more, err)
		}
	})
}

// Everybody of ours has left; much happens; somebody comes back.
func TestAdopt_EntersAgain(t *testing.T) {
	eachAbroad(t, []string{"6", "12"}, func(t *testing.T, r *abroad) {
		r.must(r.rooms.Adopt(r.ctx(), r.answer(user("anna"))))
		r.must(r.member(r.room, user("anna"), user("anna"), "leave"))
		left := r.timeline(r.room)
		left, err := r.rooms.Sign(r.ctx(), left[len(left)-1:])
		r.must(err)
		leave := left[0]
		r.events = append(r.events, leave.Event)
		r.state[leave.Key()] = leave.Event
		topic := r.add(fred, "m.room.topic", ptr(""), map[string]any{"topic": "while you were away"})
		r.add(fred, "m.room.member", ptr("@eve:acme.example"), map[string]any{"membership": "ban"})
		r.must(r.rooms.Adopt(r.ctx(), r.answer(user("anna"))))
		if got := r.stateID(r.room, "m.room.topic", ""); got != topic.ID {
			t.Errorf("topic %s, want %s", got, topic.ID)
		}
		r.must(r.rooms.Look(r.ctx(), r.room, func(v room.View) {
			if v.Membership("@eve:acme.example") != auth.Ban || v.Membership(user("anna")) != auth.Join || len(v.Head().Extremities) != 1 {
				t.Error("the state is not that of the room now")
			}
		}))
		r.fresh()
		if _, err := r.say(r.room, user("anna"), "back"); err != nil {
			t.Error(err)
		}
	})
}

func TestF110_A43_A59_AnswersThatAreNotRight(t *testing.T) {
	eachAbroad(t, []string{"11", "12"}, func(t *testing.T, r *abroad) {
		for i := range 6 {
			who := fmt.Sprintf("@u%d:far.example", i)
			r.add(matrix.UserID(who), "m.room.member", ptr(who), map[string]any{"membership": "join"})
		}
		good := r.answer(user("anna"))
		without := func(list [][]byte, part string) [][]byte {
			return slices.DeleteFunc(slices.Clone(list), func(b []byte) bool { return strings.Contains(string(b), part) })
		}
		for what, change := range map[string]func(*room.Adoption){
			"no create event": func(a *room.Adoption) {
				a.State, a.Auth = without(a.State, `"m.room.create"`), without(a.Auth, `"m.room.create"`)
			},
			"another version": func(a *room.Adoption) { a.Version = "10" },
			"no power levels": func(a *room.Adoption) { a.State = without(a.State, `"m.room.power_levels"`) },
			"no join rules":   func(a *room.Adoption) { a.State = without(a.State, `"m.room.join_rules"`) },
			"no members":      func(a *room.Adoption) { a.State = without(a.State, `"m.room.member"`) },
			"nothing":         func(a *room.Adoption) { a.State, a.Auth = nil, nil },
			"another event":   func(a *room.Adoption) { a.Event = a.State[0] },
			"another room":    func(a *room.Adoption) { a.RoomID = r.id },
			"auth events forgotten": func(a *room.Adoption) {
				a.State, a.Auth = without(a.State, `"join_rule"`), without(a.Auth, `"join_rule"`)
			},
		} {
			a := good
			change(&a)
			if err := r.rooms.Adopt(r.ctx(), a); status(err) != 502 && status(err) != 400 {
				t.Errorf("version %s: %s: %v, want 502", r.v.ID, what, err)
			}
			if in, _ := r.rooms.InRoom(r.ctx(), r.room, acme); in {
				t.Fatalf("version %s: %s: the room was entered", r.v.ID, what)
			}
		}
		// One event that is not right and that nothing depends on is left out.
		bad := good
		bad.State = slices.Clone(bad.State)
		i := slices.IndexFunc(bad.State, func(b []byte) bool { return strings.Contains(string(b), `"state_key":"@u3:far.example"`) })
		bad.State[i] = []byte(strings.Replace(string(bad.State[i]), `"depth":`, `"depth":1`, 1))
		bad.Auth = append(without(bad.Auth, `"state_key":"@u3:far.example"`), []byte(`{}`), []byte(`[`), nil)
		r.must(r.rooms.Adopt(r.ctx(), bad))
		r.must(r.rooms.Look(r.ctx(), r.room, func(v room.View) {
			if v.Membership("@u3:far.example") != "" || v.Membership("@u4:far.example") != auth.Join {
				t.Errorf("version %s: the state holds what is not signed, or lacks what is", r.v.ID)
			}
		}))
		// A parallel room with the same ID is refused where rooms have names that are given.
		if r.v.RoomIDHash {
			return
		}
		r.must(r.member(r.room, user("anna"), user("anna"), "leave"))
		twin := newAbroad(r.town, r.v.ID, "twin")
		twin.add(fred, "m.room.topic", ptr(""), map[string]any{"topic": "twin"})
		again := twin.answer(user("anna"))
		first := r.stateID(r.room, "m.room.create", "")
		if twin.events[0].ID == first {
			t.Fatal("the twin is the same room")
		}
		if err := r.rooms.Adopt(r.ctx(), again); status(err) != 502 || r.stateID(r.room, "m.room.create", "") != first {
			t.Errorf("a second room with the same ID: %v, want 502", err)
		}
	})
}

func TestR338_StrangersInTheRoomToJoin(t *testing.T) {
	eachAbroad(t, []string{"12"}, func(t *testing.T, r *abroad) {
		r.add(mallory, "m.room.member", ptr(string(mallory)), map[string]any{"membership": "join"})
		err := r.rooms.Adopt(r.ctx(), r.answer(user("anna")))
		refused(t, err, "join next to a stranger")
		if err := r.rooms.Look(r.ctx(), r.room, func(room.View) {}); err == nil {
			t.Error("something of the room was stored")
		}
	})
}

// History and state of a stranger that a partner serves: it counts, and nobody sees it.
func TestR335_R337_R339_StrangersInHistory(t *testing.T) {
	eachAbroad(t, []string{"11", "12"}, func(t *testing.T, r *abroad) {
		r.add(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "one"})
		came := r.add(mallory, "m.room.member", ptr(string(mallory)), map[string]any{"membership": "join", "displayname": "canary"})
		said := r.add(mallory, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "canary"})
		two := r.add(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "two"})
		r.add(fred, "m.room.member", ptr(string(mallory)), map[string]any{"membership": "leave"})
		a := r.answer(user("anna"))
		r.serve()
		r.must(r.rooms.Adopt(r.ctx(), a))
		pages := 0
		for more := true; more && pages < 20; pages++ {
			var err error
			more, err = r.backfill(r.room, 2)
			r.must(err)
		}
		if pages < 3 {
			t.Errorf("%d pages of history", pages)
		}
		for _, e := range []*event.Event{came, said} {
			if f := r.event(e.ID).Flags; f&storage.Withheld == 0 || !f.Hidden() {
				t.Errorf("%s of a stranger is marked %b", e.Type, f)
			}
		}
		var shown []*event.Event
		for _, e := range r.events {
			if e.Sender != mallory {
				shown = append(shown, e)
			}
		}
		r.shows(r.room, shown...)
		if r.event(two.ID).StateRoot == r.event(r.events[5].ID).StateRoot {
			t.Error("a stranger's join is not part of the state that others built upon")
		}
	})
}

func TestF109_R366_JoinOfFiveThousand(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"sqlite", "postgres"} {
		k := newKit(t, database, nil)
		k.must(k.engine.SetAgreements(context.Background(), []policy.Agreement{{ID: "a", Owner: string(acme), Partner: "far.example", State: "active",
			Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}}}))
		r := newAbroad(newTown(k, "12"), "12")
		const members = 5000
		for i := range members {
			who := fmt.Sprintf("@member%d:far.example", i)
			r.add(matrix.UserID(who), "m.room.member", ptr(who), map[string]any{"membership": "join", "displayname": who})
			clear(r.before)
		}
		a := r.answer(user("anna"))
		begin := time.Now()
		r.must(r.rooms.Adopt(r.ctx(), a))
		took := time.Since(begin)
		t.Logf("%s: joined a room of %d members in %v", database, members, took)
		if took > 20*time.Second { // the bar is 5 s on a machine of one's own
			t.Errorf("%s: a join took %v", database, took)
		}
		r.must(r.rooms.Look(r.ctx(), r.room, func(v room.View) {
			if v.Joined() != members+2 {
				t.Errorf("%d members", v.Joined())
			}
		}))
		a.State = append(a.State, make([][]byte, 300_000)...)
		if err := r.rooms.Adopt(r.ctx(), a); status(err) != 502 {
			t.Errorf("a state of 300,000 events: %v, want 502", err)
		}
	}
}
