package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
)

// cited fills ev.AuthEvents with what the room has of the selection, and more.
func (w *world) cited(ev *event.Event, more ...*event.Event) []*event.Event {
	var list []*event.Event
	for _, k := range NeededFor(ev) {
		if a := w.state[k]; a != nil {
			list = append(list, a)
		}
	}
	list = append(list, more...)
	ev.AuthEvents = nil
	for _, a := range list {
		ev.AuthEvents = append(ev.AuthEvents, a.ID)
	}
	return list
}

func never(matrix.EventID) bool { return false }

func TestCheckAuthEvents(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		ev := message(user)(w)
		list := w.cited(ev)
		if got := rule(t, CheckAuthEvents(ev, list, never)); got != "" {
			t.Errorf("exact selection denied by %s", got)
		}
		if err := CheckAuthEvents(ev, list[1:], never); !errors.Is(err, ErrMissing) {
			t.Errorf("missing auth event gives %v, want ErrMissing", err)
		}
		if w.v.CreateInAuthEvents {
			ev.AuthEvents = ev.AuthEvents[1:]
			if got := rule(t, CheckAuthEvents(ev, list, never)); got != "auth_events.create" {
				t.Errorf("without create event: %q", got)
			}
		}
		ev = message(user)(w)
		foreign := w.event(TypePowerLevels, str(""), alice, `{}`)
		foreign.RoomID = "!other:a.example"
		ev.AuthEvents = []matrix.EventID{foreign.ID}
		if got := rule(t, CheckAuthEvents(ev, []*event.Event{foreign}, never)); got != "auth_events.room" {
			t.Errorf("auth event of another room: %q", got)
		}
		if got := rule(t, CheckAuthEvents(w.find(TypeCreate, ""), nil, never)); got != "" {
			t.Errorf("create event: %q", got)
		}
	})
}

func TestA37_DuplicateAuthKeys(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		ev := message(user)(w)
		again := w.member(user, user, `{"membership":"join"}`)
		list := w.cited(ev, again)
		if got := rule(t, CheckAuthEvents(ev, list, never)); got != "auth_events.duplicate" {
			t.Errorf("two memberships of one user: %q", got)
		}
		list = w.cited(ev)
		ev.AuthEvents = append(ev.AuthEvents, ev.AuthEvents[0])
		if got := rule(t, CheckAuthEvents(ev, list, never)); got != "auth_events.duplicate" {
			t.Errorf("one event twice: %q", got)
		}
	})
}

func TestA38_UnselectedAuthEvents(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		for _, extra := range []*event.Event{
			w.event("m.room.topic", str(""), alice, `{}`),
			w.find(TypeJoinRules, ""),
			w.find(TypeMember, string(mod)),
			w.event("m.room.message", nil, user, `{}`),
			w.event(TypePowerLevels, str("x"), alice, `{}`),
		} {
			ev := message(user)(w)
			if got := rule(t, CheckAuthEvents(ev, w.cited(ev, extra), never)); got != "auth_events.selection" {
				t.Errorf("%s among the auth events: %q", extra.Type, got)
			}
		}
		leave := membership(mod, user, "leave")(w)
		if got := rule(t, CheckAuthEvents(leave, w.cited(leave, w.find(TypeJoinRules, "")), never)); got != "auth_events.selection" {
			t.Errorf("join rules for a kick: %q", got)
		}
	})
}

func TestA39_RejectedAuthEvent(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		ev := message(user)(w)
		list := w.cited(ev)
		for _, bad := range ev.AuthEvents {
			rejected := func(id matrix.EventID) bool { return id == bad }
			if got := rule(t, CheckAuthEvents(ev, list, rejected)); got != "auth_events.rejected" {
				t.Errorf("rejected auth event: %q", got)
			}
		}
		if w.v.RoomIDHash {
			rejected := func(id matrix.EventID) bool { return id == w.find(TypeCreate, "").ID }
			if got := rule(t, CheckAuthEvents(ev, list, rejected)); got != "room" {
				t.Errorf("rejected create event: %q", got)
			}
		}
	})
}

func TestA41_CreateCitedInVersion12(t *testing.T) {
	t.Parallel()
	w := furnished(t, "12")
	ev := message(user)(w)
	list := w.cited(ev, w.find(TypeCreate, ""))
	if got := rule(t, CheckAuthEvents(ev, list, never)); got != "auth_events.selection" {
		t.Errorf("create event cited: %q", got)
	}
	for _, k := range NeededFor(ev) {
		if k.Type == TypeCreate {
			t.Error("the create event is selected in version 12")
		}
	}
}

func TestA42_MalformedCreateInVersion12(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		`{"additional_creators":[]}`:                            "",
		`{"additional_creators":["@x:y.example"]}`:              "",
		`{"additional_creators":"@x:y.example"}`:                "create.additional_creators",
		`{"additional_creators":null}`:                          "create.additional_creators",
		`{"additional_creators":{}}`:                            "create.additional_creators",
		`{"additional_creators":[7]}`:                           "create.additional_creators",
		`{"additional_creators":["x:y.example"]}`:               "create.additional_creators",
		`{"additional_creators":["@x"]}`:                        "create.additional_creators",
		`{"additional_creators":["@x:y.example:port"]}`:         "create.additional_creators",
		`{"additional_creators":["@ok:y.example","y.example"]}`: "create.additional_creators",
	} {
		w := empty(t, "12")
		if got := rule(t, CheckCreate(w.create(content))); got != want {
			t.Errorf("%s: denied by %q, want %q", content, got, want)
		}
		w = empty(t, "11")
		if got := rule(t, CheckCreate(w.create(content))); got != "" {
			t.Errorf("%s in version 11: denied by %q", content, got)
		}
	}
	w := empty(t, "12")
	ev := w.create(`{}`)
	ev.JSON = []byte(`{"content":{},"room_id":"!create","type":"m.room.create"}`)
	if got := rule(t, CheckCreate(ev)); got != "create.room_id" {
		t.Errorf("create with room_id: %q", got)
	}
	wrong := w.event("m.room.message", nil, alice, `{}`)
	wrong.RoomID = "!another"
	w.want("room ID that is not the hash of the create event", wrong, "room")
}

func TestA43_SecondCreate(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		second := w.create(`{"creator":"` + string(alice) + `"}`)
		second.ID = "$second:a.example"
		w.want("second create event", second, "create.second")
		w.want("the room's own create event", w.find(TypeCreate, ""), "")
	})
}

func TestA45_CreatorInPowerLevels(t *testing.T) {
	t.Parallel()
	w := furnished(t, "12")
	create := w.create(`{"additional_creators":["` + string(peer) + `"]}`)
	w.set(create)
	for _, u := range []matrix.UserID{alice, peer} {
		w.want("creator listed", w.event(TypePowerLevels, str(""), alice, `{"users":{"`+string(u)+`":100}}`), "power_levels.creator")
	}
	delete(w.state, event.StateKey{Type: TypePowerLevels})
	w.want("first power levels", w.event(TypePowerLevels, str(""), alice, `{"users":{"`+string(alice)+`":100}}`), "power_levels.creator")
	w.want("nobody listed", w.event(TypePowerLevels, str(""), alice, `{}`), "")
	w.want("others listed", w.event(TypePowerLevels, str(""), peer, `{"users":{"`+string(user)+`":9007199254740991}}`), "")
	for _, pair := range [][2]matrix.UserID{{alice, peer}, {peer, alice}} {
		w.want("creator kicks creator", w.member(pair[0], pair[1], `{"membership":"leave"}`), "member.leave.level")
		w.want("creator bans creator", w.member(pair[0], pair[1], `{"membership":"ban"}`), "member.ban.level")
	}
	join := w.member(peer, peer, `{"membership":"join"}`)
	join.PrevEvents = []matrix.EventID{create.ID}
	delete(w.state, event.StateKey{Type: TypeMember, Key: string(peer)})
	w.joinRule(JoinRuleInvite)
	w.want("first join of an additional creator", join, "member.join.invite")
}

func TestA46_PowerLevelEscalation(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		admin := ""
		if !w.v.PrivilegedCreators {
			admin = fmt.Sprintf("%q:100,", alice)
		}
		users := func(rest string) string { return `"users":{` + admin + rest + `}` }
		base := users(fmt.Sprintf("%q:50,%q:50,%q:10", mod, peer, user))
		const events, notify = `"events":{"high":80,"low":10}`, `"notifications":{"high":80,"room":20}`
		const scalars = `"ban":50,"kick":50,"redact":60,"users_default":5`
		w.set(w.event(TypePowerLevels, str(""), alice, `{`+strings.Join([]string{base, events, notify, scalars}, ",")+`}`))
		change := func(name, want string, replace ...string) {
			t.Helper()
			content := strings.NewReplacer(replace...).Replace(`{` + strings.Join([]string{base, events, notify, scalars}, ",") + `}`)
			w.want(name, w.event(TypePowerLevels, str(""), mod, content), want)
		}
		entry := func(u matrix.UserID, l int) string { return fmt.Sprintf("%q:%d", u, l) }
		notifications := "power_levels.notifications"
		if !w.v.NotificationsAuth {
			notifications = ""
		}
		change("no change", "")
		change("raise self", "power_levels.users", entry(mod, 50), entry(mod, 51))
		change("lower self", "", entry(mod, 50), entry(mod, 1))
		change("remove self", "", entry(mod, 50)+",", "")
		change("raise another above self", "power_levels.users", entry(user, 10), entry(user, 51))
		change("raise another to the own level", "", entry(user, 10), entry(user, 50))
		change("lower an equal", "power_levels.users", entry(peer, 50), entry(peer, 49))
		change("remove an equal", "power_levels.users", ","+entry(peer, 50), "")
		change("remove a lesser", "", ","+entry(user, 10), "")
		change("remove users", "power_levels.users", base+",", "")
		change("delete users_default", "", `,"users_default":5`, "")
		change("raise users_default above self", "power_levels.default", `"users_default":5`, `"users_default":51`)
		change("change a scalar that is above self", "power_levels.default", `"redact":60`, `"redact":10`)
		change("delete a scalar that is above self", "power_levels.default", `"redact":60,`, "")
		change("lower ban", "", `"ban":50`, `"ban":0`)
		change("raise ban above self", "power_levels.default", `"ban":50`, `"ban":51`)
		change("add a scalar above self", "power_levels.default", `"ban":50`, `"ban":50,"state_default":51`)
		change("add a scalar at the own level", "", `"ban":50`, `"ban":50,"state_default":50`)
		change("lower an entry above self", "power_levels.events", `"high":80,"low"`, `"high":10,"low"`)
		change("remove an entry above self", "power_levels.events", `"high":80,"low"`, `"low"`)
		change("remove events", "power_levels.events", events+",", "")
		change("raise an entry above self", "power_levels.events", `"low":10`, `"low":51`)
		change("add an entry above self", "power_levels.events", `"low":10`, `"low":10,"new":51`)
		change("add an entry at the own level", "", `"low":10`, `"low":10,"new":50`)
		change("remove an entry", "", `,"low":10`, "")
		change("lower a notification above self", notifications, `"high":80,"room"`, `"high":10,"room"`)
		change("add a notification above self", notifications, `"room":20`, `"room":20,"x":51`)
		change("lower a notification", "", `"room":20`, `"room":1`)
		w.want("member changes levels", w.event(TypePowerLevels, str(""), user, `{}`), "level.required")
		w.want("creator changes all", w.event(TypePowerLevels, str(""), alice, `{`+users(entry(mod, 1))+`}`), "")
	})
}

func TestA47_PowerLevelTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value string
		// from and to are the versions that accept the value; to is 0 where none does.
		from, to int
		want     Level
	}{
		{`50`, 1, 12, 50},
		{`-1`, 1, 12, -1},
		{`9007199254740991`, 1, 12, maxSafe},
		{`"50"`, 1, 9, 50},
		{`" +00100 "`, 1, 9, 100},
		{`"-100"`, 1, 9, -100},
		{`"1152921504606846976"`, 1, 9, 1 << 60},
		{`"99999999999999999999999999"`, 1, 9, maxLevel},
		{`50.57`, 1, 5, 50},
		{`-50.57`, 1, 5, -50},
		{`1152921504606846976`, 1, 5, 1 << 60},
		{`null`, 0, 0, 0},
		{`"abc"`, 0, 0, 0},
		{`""`, 0, 0, 0},
		{`"1.5"`, 0, 0, 0},
		{`"0x10"`, 0, 0, 0},
		{`"1_000"`, 0, 0, 0},
		{`"+-5"`, 0, 0, 0},
		{`true`, 0, 0, 0},
		{`[]`, 0, 0, 0},
		{`{}`, 0, 0, 0},
	} {
		everyVersion(t, 1, 12, func(t *testing.T, id string) {
			w := empty(t, id)
			for _, where := range []string{`{"ban":%s}`, `{"users":{"@x:y":%s}}`, `{"events":{"e":%s}}`, `{"notifications":{"room":%s}}`} {
				content := []byte(fmt.Sprintf(where, c.value))
				p, err := ParsePowerLevels(w.v, content)
				accepted := w.n >= c.from && w.n <= c.to
				ignored := !w.v.NotificationsAuth && strings.Contains(where, "notifications")
				if (err == nil) != (accepted || ignored) {
					t.Errorf("ParsePowerLevels(%s) = %v, want accepted = %v", content, err, accepted)
				}
				if err != nil && !errors.Is(err, ErrPowerLevels) {
					t.Errorf("error %v is not ErrPowerLevels", err)
				}
				if err == nil && strings.Contains(where, "ban") && p.Ban() != c.want {
					t.Errorf("ban of %s = %d, want %d", content, p.Ban(), c.want)
				}
				if err == nil && strings.Contains(where, "users") && p.User("@x:y") != c.want {
					t.Errorf("user of %s = %d, want %d", content, p.User("@x:y"), c.want)
				}
			}
		})
	}
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		for _, content := range []string{
			`{"users":[]}`, `{"users":null}`, `{"users":{"nobody":1}}`, `{"users":{"@x":1}}`, `{"users":{"":1}}`, `{"events":7}`,
		} {
			w.want(content, w.event(TypePowerLevels, str(""), alice, content), "power_levels.malformed")
		}
	})
	v := version(t, "5")
	for _, content := range []string{`{"ban":1e400}`, `{"ban":-1e400}`} {
		if _, err := ParsePowerLevels(v, []byte(content)); err == nil {
			t.Errorf("ParsePowerLevels(%s) gave no error", content)
		}
	}
	if p, err := ParsePowerLevels(v, []byte(`{"ban":5.114698E4}`)); err != nil || p.Ban() != 51146 {
		t.Errorf("exponents are not applied: %v", err)
	}
}

func TestA49_NoPowerLevels(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		delete(w.state, event.StateKey{Type: TypePowerLevels})
		w.want("state of a moderator without power levels", state("m.room.topic", "", mod, `{}`)(w), "level.required")
		w.want("power levels by a moderator", state(TypePowerLevels, "", mod, `{}`)(w), "level.required")
		w.want("state of the creator", state("m.room.topic", "", alice, `{}`)(w), "")
		w.want("power levels by the creator", state(TypePowerLevels, "", alice, w.power(`"ban":1`))(w), "")
	})
}

func TestA50_NotAMember(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		for _, u := range []matrix.UserID{nobody, gone, invited, banned, knocker} {
			w.want("message", message(u)(w), "sender.not_joined")
			w.want("state", state("m.room.topic", "", u, `{}`)(w), "sender.not_joined")
			w.want("redaction", w.event(TypeRedaction, nil, u, `{}`), "sender.not_joined")
			w.want("ban", membership(u, user, "ban")(w), "member.ban.sender")
			w.want("kick", membership(u, user, "leave")(w), "member.leave.sender")
		}
	})
}

func TestA51_StateKeyOfSomebodyElse(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		w.want("state of another user", state("m.x", string(user), alice, `{}`)(w), "state_key.owner")
		w.want("bare sigil", state("m.x", "@", alice, `{}`)(w), "state_key.owner")
		w.want("own state", state("m.x", string(alice), alice, `{}`)(w), "")
		w.want("ordinary key", state("m.x", "x@y", alice, `{}`)(w), "")
	})
}

func TestA70_Knock(t *testing.T) {
	t.Parallel()
	everyVersion(t, 7, 12, func(t *testing.T, id string) {
		for _, jr := range []string{JoinRulePublic, JoinRuleInvite, JoinRuleRestricted, "private", JoinRuleKnock, JoinRuleKnockRestricted} {
			w := furnished(t, id)
			w.joinRule(jr)
			if jr != JoinRuleKnock && !(jr == JoinRuleKnockRestricted && w.v.KnockRestricted) {
				w.want("knock at "+jr, membership(nobody, nobody, "knock")(w), "member.knock.rule")
				continue
			}
			w.want("knock", membership(nobody, nobody, "knock")(w), "")
			w.want("knock again", membership(knocker, knocker, "knock")(w), "")
			w.want("knock after leaving", membership(gone, gone, "knock")(w), "")
			w.want("knock for somebody else", membership(user, nobody, "knock")(w), "member.knock.sender")
			for _, u := range []matrix.UserID{banned, invited, user} {
				w.want("knock of "+string(u), membership(u, u, "knock")(w), "member.knock.membership")
			}
		}
	})
}

func TestA71_FederateFalse(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		w.set(w.create(`{"creator":"` + string(alice) + `","m.federate":false}`))
		w.set(w.member("@bob:a.example", "@bob:a.example", `{"membership":"join"}`))
		w.want("message of another server", message(user)(w), "federate")
		w.want("join from another server", membership(nobody, nobody, "join")(w), "federate")
		w.want("invite by another server", membership(mod, nobody, "invite")(w), "federate")
		w.want("message of the own server", message("@bob:a.example")(w), "")
		w.want("invite to another server", membership(alice, nobody, "invite")(w), "federate")
		w.want("invite on the own server", membership(alice, "@new:a.example", "invite")(w), "")
		for _, open := range []string{`true`, `"false"`, `0`, `null`} {
			w.set(w.create(`{"creator":"` + string(alice) + `","m.federate":` + open + `}`))
			w.want("m.federate "+open, message(user)(w), "")
		}
	})
}

func TestA73_RedactionTakesEffect(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		r := w.rules()
		redaction := func(sender matrix.UserID, target *event.Event) *event.Event {
			ev := w.event(TypeRedaction, nil, sender, `{}`)
			ev.Redacts = target.ID
			return ev
		}
		check := func(name string, red, target *event.Event, want bool) {
			t.Helper()
			if got := CanApplyRedaction(r, red, target); got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		theirs, ours := message(alice)(w), message(mod)(w)
		check("own server", redaction(user, ours), ours, true)
		check("other server", redaction(user, theirs), theirs, false)
		check("with power", redaction(mod, theirs), theirs, true)
		check("other target", redaction(mod, theirs), ours, false)
		red := redaction(mod, theirs)
		red.RoomID = "!other:a.example"
		check("other room", red, theirs, false)
		red = redaction(mod, theirs)
		red.Redacts = red.ID
		check("itself", red, red, false)
		w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"events_default":60`)))
		r = w.rules()
		check("with power, but not for the type of the target", redaction(mod, theirs), theirs, true)
	})
}

func TestA73_RedactedEventsStillAuthorise(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		w.signers["b.example"] = true
		w.joinRule(JoinRuleRestricted)
		for k, ev := range w.state {
			w.state[k] = redacted(t, ev)
		}
		w.want("message after redaction of all state", message(user)(w), "")
		w.want("ban stays", membership(banned, banned, "join")(w), "member.join.banned")
		invite := membership(user, nobody, "invite")(w)
		if got, kept := w.verdict(invite) == "member.invite.level", w.n >= 11; got != kept {
			t.Errorf("the invite level survives = %v, want %v", got, kept)
		}
		if w.v.Restricted {
			join := redacted(t, w.member(nobody, nobody,
				fmt.Sprintf(`{"membership":"join","join_authorised_via_users_server":%q}`, mod)))
			want := ""
			if w.n == 8 {
				want = "member.join.restricted"
			}
			w.want("redacted restricted join", join, want)
		}
	})
}

func TestA77_KickBanEquality(t *testing.T) {
	t.Parallel()
	everyVersion(t, 1, 12, func(t *testing.T, id string) {
		w := furnished(t, id)
		w.want("kick of an equal", membership(mod, peer, "leave")(w), "member.leave.level")
		w.want("ban of an equal", membership(mod, peer, "ban")(w), "member.ban.level")
		w.want("kick of oneself by ban", membership(mod, mod, "ban")(w), "member.ban.level")
		w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"ban":60,"kick":50`)))
		w.want("lift a ban with the kick level alone", membership(mod, banned, "leave")(w), "member.leave.unban")
		w.want("kick", membership(mod, user, "leave")(w), "")
		w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"ban":50,"kick":60`)))
		w.want("lift a ban with the ban level alone", membership(mod, banned, "leave")(w), "member.leave.level")
		w.want("ban", membership(mod, user, "ban")(w), "")
		w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"users_default":50`)))
		w.want("lift the ban of an equal", membership(mod, banned, "leave")(w), "member.leave.level")
	})
}
