package auth

import (
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
)

// row is one line of the table of rules: an event in a furnished room, and the rule that denies it (empty: allowed) in
// the versions from first to last.
type row struct {
	name        string
	first, last int
	setup       func(*world)
	event       func(*world) *event.Event
	want        string
}

func message(sender matrix.UserID) func(*world) *event.Event {
	return func(w *world) *event.Event { return w.event("m.room.message", nil, sender, `{"body":"hi"}`) }
}

func state(typ, key string, sender matrix.UserID, content string) func(*world) *event.Event {
	return func(w *world) *event.Event { return w.event(typ, str(key), sender, content) }
}

func membership(sender, target matrix.UserID, m string) func(*world) *event.Event {
	return func(w *world) *event.Event { return w.member(sender, target, `{"membership":"`+m+`"}`) }
}

func joinRule(rule string) func(*world) { return func(w *world) { w.joinRule(rule) } }

func runRows(t *testing.T, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			everyVersion(t, r.first, r.last, func(t *testing.T, id string) {
				w := furnished(t, id)
				if r.setup != nil {
					r.setup(w)
				}
				w.want(r.name, r.event(w), r.want)
			})
		})
	}
}

func TestRules_General(t *testing.T) {
	t.Parallel()
	runRows(t, []row{
		{"member sends a message", 1, 12, nil, message(user), ""},
		{"moderator sets the topic", 1, 12, nil, state("m.room.topic", "", mod, `{"topic":"x"}`), ""},
		{"member sets the topic", 1, 12, nil, state("m.room.topic", "", user, `{"topic":"x"}`), "level.required"},
		{"level of the type counts", 1, 12, nil, state("m.room.name", "", user, `{"name":"x"}`), "level.required"},
		{"message with a level of its own", 1, 12, func(w *world) {
			w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"events":{"m.room.message":10}`)))
		}, message(user), "level.required"},
		{"events_default counts", 1, 12, func(w *world) {
			w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"events_default":1`)))
		}, message(user), "level.required"},
		{"users_default lifts", 1, 12, func(w *world) {
			w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"events_default":1,"users_default":1`)))
		}, message(user), ""},
		{"another room", 1, 12, nil, func(w *world) *event.Event {
			ev := w.event("m.room.message", nil, user, `{}`)
			ev.RoomID = "!other:a.example"
			return ev
		}, "room"},
		{"aliases of another server", 1, 5, nil, state(TypeAliases, "a.example", user, `{"aliases":[]}`), "aliases.server"},
		{"aliases without state key", 1, 5, nil, func(w *world) *event.Event {
			return w.event(TypeAliases, nil, user, `{"aliases":[]}`)
		}, "aliases.state_key"},
		{"aliases need no membership", 1, 5, nil, state(TypeAliases, "c.example", nobody, `{"aliases":[]}`), ""},
		{"aliases are ordinary state", 6, 12, nil, state(TypeAliases, "b.example", user, `{"aliases":[]}`), "level.required"},
		{"third-party invite by a moderator", 1, 12, nil, state(TypeThirdPartyInvite, "t", mod, `{}`), ""},
		{"third-party invite by a member", 1, 12, nil, state(TypeThirdPartyInvite, "t", user, `{}`), "third_party_invite.level"},
		{"third-party invite by a stranger", 1, 12, nil, state(TypeThirdPartyInvite, "t", nobody, `{}`), "sender.not_joined"},
		{"redaction of another server's event", 1, 2, nil, func(w *world) *event.Event {
			ev := w.event(TypeRedaction, nil, user, `{}`)
			ev.Redacts = "$x:a.example"
			return ev
		}, "redaction.level"},
		{"redaction without target", 1, 2, nil, func(w *world) *event.Event {
			return w.event(TypeRedaction, nil, user, `{}`)
		}, "redaction.level"},
		{"redaction of the own server's event", 1, 2, nil, func(w *world) *event.Event {
			ev := w.event(TypeRedaction, nil, user, `{}`)
			ev.Redacts = "$x:b.example"
			return ev
		}, ""},
		{"redaction by a moderator", 1, 12, nil, func(w *world) *event.Event {
			ev := w.event(TypeRedaction, nil, mod, `{}`)
			ev.Redacts = "$x:a.example"
			return ev
		}, ""},
		{"redaction is an ordinary event", 3, 12, nil, func(w *world) *event.Event {
			ev := w.event(TypeRedaction, nil, user, `{}`)
			ev.Redacts = "$x:a.example"
			return ev
		}, ""},
	})
}

func TestRules_Member(t *testing.T) {
	t.Parallel()
	firstJoin := func(sender, target matrix.UserID) func(*world) *event.Event {
		return func(w *world) *event.Event {
			ev := w.member(sender, target, `{"membership":"join"}`)
			ev.PrevEvents = []matrix.EventID{w.find(TypeCreate, "").ID}
			return ev
		}
	}
	private := joinRule(JoinRuleInvite)
	runRows(t, []row{
		{"no state key", 1, 12, nil, func(w *world) *event.Event {
			return w.event(TypeMember, nil, user, `{"membership":"join"}`)
		}, "member.state_key"},
		{"no membership", 1, 12, nil, state(TypeMember, string(user), user, `{}`), "member.membership"},
		{"membership is a number", 1, 12, nil, state(TypeMember, string(user), user, `{"membership":5}`), "member.unknown"},
		{"unknown membership", 1, 12, nil, membership(user, user, "dance"), "member.unknown"},
		{"other-case membership", 1, 12, nil, state(TypeMember, string(user), user, `{"Membership":"join"}`), "member.membership"},

		{"creator's first join", 1, 12, private, firstJoin(alice, alice), ""},
		{"first join of somebody else", 1, 12, private, firstJoin(nobody, nobody), "member.join.invite"},
		{"creator's join after more events", 1, 12, private, func(w *world) *event.Event {
			delete(w.state, event.StateKey{Type: TypeMember, Key: string(alice)})
			return w.member(alice, alice, `{"membership":"join"}`)
		}, "member.join.invite"},
		{"join a public room", 1, 12, nil, membership(nobody, nobody, "join"), ""},
		{"join for somebody else", 1, 12, nil, membership(user, nobody, "join"), "member.join.sender"},
		{"join while banned", 1, 12, nil, membership(banned, banned, "join"), "member.join.banned"},
		{"join without invite", 1, 12, private, membership(nobody, nobody, "join"), "member.join.invite"},
		{"join again after leaving", 1, 12, private, membership(gone, gone, "join"), "member.join.invite"},
		{"join with invite", 1, 12, private, membership(invited, invited, "join"), ""},
		{"change of profile", 1, 12, private, membership(user, user, "join"), ""},
		{"join without join rules", 1, 12, func(w *world) {
			delete(w.state, event.StateKey{Type: TypeJoinRules})
		}, membership(nobody, nobody, "join"), "member.join.invite"},
		{"join rule missing", 1, 12, func(w *world) {
			w.set(w.event(TypeJoinRules, str(""), alice, `{}`))
		}, membership(invited, invited, "join"), ""},
		{"join rule is a number", 1, 12, func(w *world) {
			w.set(w.event(TypeJoinRules, str(""), alice, `{"join_rule":1}`))
		}, membership(invited, invited, "join"), "member.join.rule"},
		{"join rule private", 1, 12, joinRule("private"), membership(invited, invited, "join"), "member.join.rule"},
		{"knock rule before version 7", 1, 6, joinRule(JoinRuleKnock), membership(invited, invited, "join"), "member.join.rule"},
		{"knock rule lets the invited in", 7, 12, joinRule(JoinRuleKnock), membership(invited, invited, "join"), ""},
		{"knock rule keeps knockers out", 7, 12, joinRule(JoinRuleKnock), membership(knocker, knocker, "join"), "member.join.invite"},
		{"restricted before version 8", 1, 7, joinRule(JoinRuleRestricted), membership(invited, invited, "join"), "member.join.rule"},
		{"restricted lets the invited in", 8, 12, joinRule(JoinRuleRestricted), membership(invited, invited, "join"), ""},
		{"restricted without authoriser", 8, 12, joinRule(JoinRuleRestricted), membership(nobody, nobody, "join"), "member.join.restricted"},
		{"knock_restricted before version 10", 1, 9, joinRule(JoinRuleKnockRestricted), membership(invited, invited, "join"), "member.join.rule"},
		{"knock_restricted lets the invited in", 10, 12, joinRule(JoinRuleKnockRestricted), membership(invited, invited, "join"), ""},
		{"knock_restricted without authoriser", 10, 12, joinRule(JoinRuleKnockRestricted), membership(nobody, nobody, "join"), "member.join.restricted"},

		{"invite by a moderator", 1, 12, nil, membership(mod, nobody, "invite"), ""},
		{"invite by a member", 1, 12, nil, membership(user, nobody, "invite"), "member.invite.level"},
		{"invite by a stranger", 1, 12, nil, membership(nobody, gone, "invite"), "member.invite.sender"},
		{"invite of a member", 1, 12, nil, membership(mod, user, "invite"), "member.invite.target"},
		{"invite of the banned", 1, 12, nil, membership(mod, banned, "invite"), "member.invite.target"},
		{"invite again", 1, 12, nil, membership(mod, invited, "invite"), ""},
		{"invite of a knocker", 7, 12, nil, membership(mod, knocker, "invite"), ""},

		{"leave", 1, 12, nil, membership(user, user, "leave"), ""},
		{"decline", 1, 12, nil, membership(invited, invited, "leave"), ""},
		{"withdraw a knock", 7, 12, nil, membership(knocker, knocker, "leave"), ""},
		{"knock has no meaning before version 7", 1, 6, func(w *world) {
			w.set(w.member(knocker, knocker, `{"membership":"knock"}`))
		}, membership(knocker, knocker, "leave"), "member.leave.self"},
		{"leave twice", 1, 12, nil, membership(gone, gone, "leave"), "member.leave.self"},
		{"leave a room never joined", 1, 12, nil, membership(nobody, nobody, "leave"), "member.leave.self"},
		{"leave to lift the own ban", 1, 12, nil, membership(banned, banned, "leave"), "member.leave.self"},
		{"kick", 1, 12, nil, membership(mod, user, "leave"), ""},
		{"kick by a stranger", 1, 12, nil, membership(nobody, user, "leave"), "member.leave.sender"},
		{"kick by a member", 1, 12, nil, membership(user, gone, "leave"), "member.leave.level"},
		{"lift a ban", 1, 12, nil, membership(mod, banned, "leave"), ""},

		{"ban", 1, 12, nil, membership(mod, user, "ban"), ""},
		{"ban a stranger", 1, 12, nil, membership(mod, nobody, "ban"), ""},
		{"ban by a member", 1, 12, nil, membership(user, nobody, "ban"), "member.ban.level"},
		{"ban by a stranger", 1, 12, nil, membership(nobody, user, "ban"), "member.ban.sender"},
		{"ban of the creator", 1, 12, nil, membership(mod, alice, "ban"), "member.ban.level"},
		{"knock before version 7", 1, 6, joinRule(JoinRuleKnock), membership(nobody, nobody, "knock"), "member.unknown"},
	})
}

func TestRules_Create(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := empty(t, id)
		ok := `{"creator":"` + string(alice) + `","room_version":"` + id + `"}`
		check := func(name string, ev *event.Event, want string) {
			t.Helper()
			if got := rule(t, CheckCreate(ev)); got != want {
				t.Errorf("%s: denied by %q, want %q", name, got, want)
			}
		}
		check("plain", w.create(ok), "")
		check("no room_version", w.create(`{"creator":"@alice:a.example"}`), "")
		check("unknown room_version", w.create(`{"creator":"@alice:a.example","room_version":"99"}`), "create.room_version")
		check("room_version is a number", w.create(`{"creator":"@alice:a.example","room_version":6}`), "create.room_version")
		ev := w.create(ok)
		ev.PrevEvents = []matrix.EventID{"$x:a.example"}
		check("prev_events", ev, "create.prev_events")
		ev = w.create(ok)
		ev.StateKey = str("x")
		check("state key", ev, "create.state_key")
		creator := ""
		if w.n <= 10 {
			creator = "create.creator"
		}
		check("no creator", w.create(`{"room_version":"`+id+`"}`), creator)
		if w.n <= 11 {
			ev = w.create(ok)
			ev.RoomID = "!r:other.example"
			check("room ID of another server", ev, "create.room_id")
		}
	})
}

func TestUserLevel_NoPowerLevels(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := empty(t, id)
		want := Level(100)
		if w.n >= 12 {
			want = Infinite
		}
		if got := w.rules().UserLevel(alice); got != want {
			t.Errorf("level of the creator = %d, want %d", got, want)
		}
		if got := w.rules().UserLevel(user); got != 0 {
			t.Errorf("level of another user = %d, want 0", got)
		}
		for _, u := range []matrix.UserID{alice, user} {
			w.set(w.member(u, u, `{"membership":"join"}`))
		}
		w.want("creator sets state", w.event("m.room.topic", str(""), alice, `{}`), "")
		w.want("member sets state", w.event("m.room.topic", str(""), user, `{}`), "level.required")
		w.want("member sends", w.event("m.room.message", nil, user, `{}`), "")
		w.want("member invites", w.member(user, nobody, `{"membership":"invite"}`), "")
	})
}

// The creator of rooms 1 to 10 is who content.creator names, later who sent the event.
func TestCreator_Field(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := empty(t, id)
		w.set(w.create(`{"creator":"` + string(user) + `"}`))
		join := func(u matrix.UserID) string {
			ev := w.member(u, u, `{"membership":"join"}`)
			ev.PrevEvents = []matrix.EventID{w.find(TypeCreate, "").ID}
			return w.verdict(ev)
		}
		allowed, refused := alice, user
		if w.n <= 10 {
			allowed, refused = user, alice
		}
		if got := join(allowed); got != "" {
			t.Errorf("first join of %s denied by %s", allowed, got)
		}
		if got := join(refused); got != "member.join.invite" {
			t.Errorf("first join of %s denied by %q", refused, got)
		}
	})
}

func TestCheck_NoState(t *testing.T) {
	t.Parallel()
	w := empty(t, "11")
	create := w.find(TypeCreate, "")
	w.state = map[event.StateKey]*event.Event{}
	w.want("create of a new room", create, "")
	w.want("message without a room", w.event("m.room.message", nil, alice, `{}`), "create.missing")
	w.set(create)
	w.set(w.event(TypePowerLevels, str(""), alice, `{"users":"x"}`))
	w.want("broken power levels", w.event("m.room.message", nil, alice, `{}`), "state.malformed")
	if _, err := NewRules(nil, nil, nil); err == nil {
		t.Error("NewRules without a create event gave no error")
	}
}

func TestCan(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		r := furnished(t, id).rules()
		for _, c := range []struct {
			name      string
			got, want bool
		}{
			{"mod invites", r.CanInvite(mod), true}, {"user invites", r.CanInvite(user), false},
			{"mod kicks user", r.CanKick(mod, user), true}, {"mod kicks peer", r.CanKick(mod, peer), false},
			{"mod bans user", r.CanBan(mod, user), true}, {"mod bans alice", r.CanBan(mod, alice), false},
			{"mod redacts", r.CanRedact(mod), true}, {"user redacts", r.CanRedact(user), false},
			{"mod notifies", r.CanNotify(mod, "room"), true}, {"user notifies", r.CanNotify(user, "room"), false},
			{"user sends", r.CanSend(user, "m.room.message", false), true},
			{"user sets state", r.CanSend(user, "m.room.topic", true), false},
			{"user promises invites", r.CanSend(user, TypeThirdPartyInvite, true), false},
			{"alice is creator", r.IsCreator(alice), true}, {"mod is creator", r.IsCreator(mod), false},
			{"federates", r.Federates(), true}, {"has power levels", r.HasPowerLevels(), true},
		} {
			if c.got != c.want {
				t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
			}
		}
		if r.JoinRule() != JoinRulePublic || r.Version().ID != id || r.Create().Type != TypeCreate {
			t.Errorf("rules tell %s, %s, %s", r.JoinRule(), r.Version().ID, r.Create().Type)
		}
	})
}
