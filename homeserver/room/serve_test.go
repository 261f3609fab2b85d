package room_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
)

const farName = matrix.ServerName("far.example")

// refusal is what a *matrix.Error says, for comparing.
func refusal(err error) string {
	var me *matrix.Error
	if !errors.As(err, &me) {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(me.Status, me.Code, me.Message)
}

// reads asks all that a server can read of a room.
func (k *kit) reads(as, server matrix.ServerName, id matrix.RoomID, at matrix.EventID) map[string]error {
	out := map[string]error{}
	_, out["event"] = k.rooms.EventFor(k.ctx(), as, server, at)
	_, _, out["state"] = k.rooms.StateFor(k.ctx(), as, server, id, at)
	_, _, out["state_ids"] = k.rooms.StateIDsFor(k.ctx(), as, server, id, at)
	_, out["event_auth"] = k.rooms.AuthFor(k.ctx(), as, server, id, at)
	_, out["backfill"] = k.rooms.BackfillFor(k.ctx(), as, server, id, []matrix.EventID{at}, 10)
	_, out["missing"] = k.rooms.MissingFor(k.ctx(), as, server, id, nil, []matrix.EventID{at}, 10, 0)
	_, _, out["nearest"] = k.rooms.NearestFor(k.ctx(), as, server, id, 1<<50, storage.Backward)
	return out
}

// parse reads served events; each must be signed by its sender's server.
func (k *kit) parse(version string, list [][]byte) []*event.Event {
	k.t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	out := make([]*event.Event, len(list))
	for i, raw := range list {
		e, err := event.Parse(v, raw)
		if err != nil {
			k.t.Fatalf("served event: %v: %s", err, raw)
		}
		key := k.keys[e.Sender.Server()]
		if e.Sender.Server() == farName {
			key = k.far.key
		}
		if err := signing.VerifyEvent(e, e.Sender.Server(), key.ID, key.Public()); err != nil {
			k.t.Errorf("served event %s of %s: %v", e.ID, e.Sender, err)
		}
		out[i] = e
	}
	return out
}

func idsOf(list []*event.Event) []matrix.EventID {
	out := make([]matrix.EventID, len(list))
	for i, e := range list {
		out[i] = e.ID
	}
	return out
}

func sorted(ids []matrix.EventID) []matrix.EventID {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return ids
}

// A server that nobody in the room belongs to, a tenant that nobody in the room belongs to, and a room that does not exist: one answer.
func TestF117_ReadsByAServerNotInTheRoom(t *testing.T) {
	t.Parallel()
	files := partner()
	files["globex.example/partners.yaml"] = files["acme.example/partners.yaml"]
	each(t, files, func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		sent, err := k.say(id, user("anna"), "secret")
		k.must(err)
		absent := k.reads(acme, farName, "!nothing:acme.example", "$nothing")
		outside := k.reads(acme, farName, id, sent.EventID)
		_, _ = k.fred(id, "11")
		wrongTenant := k.reads(globex, farName, id, sent.EventID)
		inside := k.reads(acme, farName, id, sent.EventID)
		for what, err := range absent {
			want := refusal(err)
			var me *matrix.Error
			if !errors.As(err, &me) || me.Status != http.StatusForbidden && !(what == "event" && me.Status == http.StatusNotFound) {
				t.Errorf("%s of a room that does not exist: %v", what, err)
			}
			if got := refusal(outside[what]); got != want {
				t.Errorf("%s from outside: %s, want %s", what, got, want)
			}
			if got := refusal(wrongTenant[what]); got != want {
				t.Errorf("%s by way of a tenant that is not in the room: %s, want %s", what, got, want)
			}
			if inside[what] != nil {
				t.Errorf("%s from inside: %v", what, inside[what])
			}
		}
		k.must(k.state(id, user("anna"), "m.room.server_acl", "", map[string]any{"allow": []string{"*"}, "deny": []string{"far.*"}}))
		for what, err := range k.reads(acme, farName, id, sent.EventID) {
			if got := refusal(err); got != refusal(absent[what]) {
				t.Errorf("%s against the server ACL: %s", what, got)
			}
		}
	})
}

func TestF118_EventsOfAnotherRoom(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id, other := k.create("11", "public", user("anna")), k.create("11", "public", user("anna"))
		_, _ = k.fred(id, "11")
		secret, err := k.say(other, user("anna"), "secret")
		k.must(err)
		unknown := k.reads(acme, farName, id, "$nothing")
		for what, err := range k.reads(acme, farName, id, secret.EventID) {
			if what == "missing" || what == "nearest" { // those ask for what is before it, and find nothing
				continue
			}
			var me *matrix.Error
			if !errors.As(err, &me) || me.Status != http.StatusNotFound || refusal(err) != refusal(unknown[what]) {
				t.Errorf("%s at an event of another room: %v", what, err)
			}
		}
		for _, latest := range [][]matrix.EventID{{secret.EventID}, {"$nothing"}} {
			if list, err := k.rooms.MissingFor(k.ctx(), acme, farName, id, nil, latest, 10, 0); err != nil || len(list) != 0 {
				t.Errorf("missing events before one of another room: %d, %v", len(list), err)
			}
		}
	})
}

// What was said before a server came in, in a room where only those who were there may read, is served without its content.
func TestF119_VisibilityForServers(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"3", "6", "11", "12"} {
			for visibility, open := range map[string]bool{"shared": true, "invited": false, "joined": false} {
				id := k.create(version, "public", user("anna"))
				k.must(k.state(id, user("anna"), "m.room.history_visibility", "", map[string]any{"history_visibility": visibility}))
				early, err := k.say(id, user("anna"), "canary before")
				k.must(err)
				_, join := k.fred(id, version)
				late, err := k.say(id, user("anna"), "canary after")
				k.must(err)
				at := func(list [][]byte, id matrix.EventID) bool {
					for i, e := range k.parse(version, list) {
						if e.ID == id {
							return strings.Contains(string(list[i]), "canary")
						}
					}
					t.Errorf("%s %s: %s is not there", version, visibility, id)
					return false
				}
				page, err := k.rooms.BackfillFor(k.ctx(), acme, farName, id, []matrix.EventID{late.EventID}, 100)
				k.must(err)
				if !at(page, late.EventID) {
					t.Errorf("%s %s: what came after the join is hidden", version, visibility)
				}
				if at(page, early.EventID) != open {
					t.Errorf("%s %s: what came before the join: shown %v", version, visibility, !open)
				}
				missing, err := k.rooms.MissingFor(k.ctx(), acme, farName, id, nil, []matrix.EventID{join.ID}, 10, 0)
				k.must(err)
				if at(missing, early.EventID) != open {
					t.Errorf("%s %s: missing events: shown %v", version, visibility, !open)
				}
				one, err := k.rooms.EventFor(k.ctx(), acme, farName, early.EventID)
				k.must(err)
				if at([][]byte{one}, early.EventID) != open {
					t.Errorf("%s %s: single event: shown %v", version, visibility, !open)
				}
			}
		}
	})
}

// The state before an event, its auth chain, and the same of the events themselves.
func TestServe_State(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"3", "6", "10", "11", "12"} {
			id := k.create(version, "public", user("anna"))
			_, join := k.fred(id, version)
			k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "one"}))
			first := k.stateID(id, "m.room.topic", "")
			k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "two"}))
			second := k.stateID(id, "m.room.topic", "")
			state, chain, err := k.rooms.StateIDsFor(k.ctx(), acme, farName, id, second)
			k.must(err)
			if !slices.Contains(state, first) || slices.Contains(state, second) || !slices.Contains(state, join.ID) || len(state) != 7 {
				t.Errorf("%s: the state before the second topic is %v", version, state)
			}
			for _, key := range []event.StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}, {Type: "m.room.join_rules"}} {
				if want := k.stateID(id, key.Type, key.Key); !slices.Contains(chain, want) {
					t.Errorf("%s: %s is not in the auth chain", version, key.Type)
				}
			}
			events, auth, err := k.rooms.StateFor(k.ctx(), acme, farName, id, second)
			k.must(err)
			if got := sorted(idsOf(k.parse(version, events))); !slices.Equal(got, sorted(state)) {
				t.Errorf("%s: state %v, identifiers %v", version, got, state)
			}
			if got := sorted(idsOf(k.parse(version, auth))); !slices.Equal(got, sorted(chain)) {
				t.Errorf("%s: chain %v, identifiers %v", version, got, chain)
			}
			state, _, err = k.rooms.StateIDsFor(k.ctx(), acme, farName, id, first)
			k.must(err)
			if len(state) != 6 {
				t.Errorf("%s: %d events before the first topic", version, len(state))
			}
			own, err := k.rooms.AuthFor(k.ctx(), acme, farName, id, join.ID)
			k.must(err)
			for _, e := range k.parse(version, own) {
				if e.ID == join.ID || e.StateKey == nil {
					t.Errorf("%s: %s is in the auth chain of the join", version, e.Type)
				}
			}
		}
	})
}

// Pages of history go through forks, newest first, and missing events stop at what is known.
func TestServe_History(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		fred, join := k.fred(id, "11")
		d1 := k.draft(id, "11", fred, "m.room.message", nil, map[string]any{"body": "left"})
		d2 := k.draft(id, "11", fred, "m.room.message", nil, map[string]any{"body": "right"})
		left, right := k.far.pdu(t, "11", d1), k.far.pdu(t, "11", d2)
		for _, e := range []*event.Event{left, right} {
			_, err := k.receive(e)
			k.must(err)
		}
		joined, err := k.say(id, user("anna"), "joins both")
		k.must(err)
		var last matrix.EventID
		for i := range 120 {
			sent, err := k.say(id, user("anna"), bodyOf(i))
			k.must(err)
			last = sent.EventID
		}
		page, err := k.rooms.BackfillFor(k.ctx(), acme, farName, id, []matrix.EventID{last}, 1000)
		k.must(err)
		list := k.parse("11", page)
		if len(list) != 100 || list[0].ID != last {
			t.Fatalf("%d events, the first of them %s", len(list), list[0].ID)
		}
		for i := 1; i < len(list); i++ {
			if list[i].Depth > list[i-1].Depth {
				t.Fatalf("event %d is deeper than the one before it", i)
			}
		}
		page, err = k.rooms.BackfillFor(k.ctx(), acme, farName, id, []matrix.EventID{joined.EventID}, 3)
		k.must(err)
		if got := idsOf(k.parse("11", page)); len(got) != 3 || !slices.Contains(got, left.ID) || !slices.Contains(got, right.ID) {
			t.Errorf("the page at the end of the fork is %v", got)
		}
		missing, err := k.rooms.MissingFor(k.ctx(), acme, farName, id, []matrix.EventID{join.ID, left.ID}, []matrix.EventID{joined.EventID}, 10, 0)
		k.must(err)
		if got := idsOf(k.parse("11", missing)); len(got) != 1 || got[0] != right.ID {
			t.Errorf("between what is known and what was heard of are %v", got)
		}
		missing, err = k.rooms.MissingFor(k.ctx(), acme, farName, id, nil, []matrix.EventID{joined.EventID}, 10, join.Depth)
		k.must(err)
		if got := idsOf(k.parse("11", missing)); len(got) != 3 || got[0] != join.ID {
			t.Errorf("down to the depth of the join are %v", got)
		}
	})
}

func TestServe_Nearest(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		_, join := k.fred(id, "11") // its clock is far in the past
		var ids []matrix.EventID
		for i := range 10 {
			sent, err := k.say(id, user("anna"), bodyOf(i))
			k.must(err)
			ids = append(ids, sent.EventID)
		}
		at := k.event(ids[4]).OriginServerTS
		_, ts, err := k.rooms.NearestFor(k.ctx(), acme, farName, id, at, storage.Forward)
		if err != nil || ts < at {
			t.Errorf("forward: %d, %v; want %d or later", ts, err, at)
		}
		_, ts, err = k.rooms.NearestFor(k.ctx(), acme, farName, id, at, storage.Backward)
		if err != nil || ts > at {
			t.Errorf("backward: %d, %v; want %d or before", ts, err, at)
		}
		if got, _, err := k.rooms.NearestFor(k.ctx(), acme, farName, id, join.OriginServerTS-1, storage.Forward); err != nil || got != join.ID {
			t.Errorf("from before everything: %s, %v; want the join %s", got, err, join.ID)
		}
		if _, _, err := k.rooms.NearestFor(k.ctx(), acme, farName, id, 1<<50, storage.Forward); err == nil {
			t.Error("something was found after everything")
		}
	})
}

// What policy withholds goes to nobody, whoever asks; its place in the graph stays.
func TestR334_WithheldEventsAreServedEmpty(t *testing.T) {
	t.Parallel()
	files := partner()
	files["acme.example/event/receive/words.rego"] = "package tenants[\"acme.example\"].event.receive\n\nimport rego.v1\n\n" +
		"deny contains {\"code\": \"word\", \"message\": \"no\"} if input.event.content.body == \"canary\"\n"
	each(t, files, func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		fred, _ := k.fred(id, "11")
		e := k.far.pdu(t, "11", k.draft(id, "11", fred, "m.room.message", nil, map[string]any{"body": "canary"}))
		r, err := k.receive(e)
		k.must(err)
		if r.Flags&storage.Withheld == 0 {
			t.Fatalf("the event is marked %b: %s", r.Flags, r.Reason)
		}
		one, err := k.rooms.EventFor(k.ctx(), acme, farName, e.ID)
		k.must(err)
		if strings.Contains(string(one), "canary") || k.parse("11", [][]byte{one})[0].ID != e.ID {
			t.Errorf("served as %s", one)
		}
		page, err := k.rooms.BackfillFor(k.ctx(), acme, farName, id, []matrix.EventID{e.ID}, 10)
		k.must(err)
		for _, raw := range page {
			if strings.Contains(string(raw), "canary") {
				t.Errorf("served in a page: %s", raw)
			}
		}
	})
}

// The point event.serve is asked of every tenant in the room.
func TestServe_PolicyDecides(t *testing.T) {
	t.Parallel()
	files := partner()
	files["globex.example/partners.yaml"] = files["acme.example/partners.yaml"]
	files["globex.example/event/serve/never.rego"] = "package tenants[\"globex.example\"].event.serve\n\nimport rego.v1\n\n" +
		"deny contains {\"code\": \"never\", \"message\": \"not from here\"} if input.server.name == \"far.example\"\n"
	files["acme.example/link.yaml"] = "partners:\n  far.example: {pools: '*', features: '*'}\n  globex.example: {pools: '*', features: '*'}\n"
	delete(files, "acme.example/partners.yaml")
	files["globex.example/partners.yaml"] = strings.ReplaceAll(files["acme.example/link.yaml"], "globex.example", "acme.example")
	each(t, files, func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		_, _ = k.fred(id, "11")
		sent, err := k.say(id, user("anna"), "hello")
		k.must(err)
		if _, err := k.rooms.EventFor(k.ctx(), acme, farName, sent.EventID); err != nil {
			t.Fatalf("before the other tenant came in: %v", err)
		}
		gina := matrix.UserID("@gina:globex.example")
		k.must(k.member(id, gina, gina, "join"))
		for what, err := range k.reads(acme, farName, id, sent.EventID) {
			var me *matrix.Error
			if !errors.As(err, &me) || me.Status != http.StatusForbidden || !strings.Contains(me.Message, "not from here") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
