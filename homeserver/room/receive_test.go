package room_test

import (
	"errors"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// partner lets acme and far.example talk.
func partner() map[string]string {
	return map[string]string{"acme.example/partners.yaml": "partners:\n  far.example: {pools: '*', features: '*'}\n"}
}

// fred is a user of the far server who has joined a room of ours by a hand-made event.
func (k *kit) fred(id matrix.RoomID, version string) (matrix.UserID, *event.Event) {
	k.t.Helper()
	fred := matrix.UserID("@fred:far.example")
	e := k.far.pdu(k.t, version, k.draft(id, version, fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join"}))
	r, err := k.receive(e)
	k.must(err)
	if r.Flags != 0 {
		k.t.Fatalf("fred's join is marked %b: %s", r.Flags, r.Reason)
	}
	return fred, e
}

// draft is an event on the room's head, authorised by its current state.
func (k *kit) draft(id matrix.RoomID, version string, sender matrix.UserID, typ string, stateKey *string, content map[string]any) event.Draft {
	k.t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	h := k.head(id)
	d := event.Draft{RoomID: id, Type: typ, StateKey: stateKey, Sender: sender, Content: room.Object(content), PrevEvents: h.Extremities,
		Depth: h.Depth + 1, OriginServerTS: 1700000000000 + h.Depth}
	for _, key := range auth.Needed(v, typ, stateKey, sender, d.Content) {
		var found matrix.EventID
		k.must(k.db.Read(k.ctx(), func(tx *storage.Tx) error {
			e, err := tx.LoadStateEvent(id, key)
			if err == nil {
				found = e.ID
			} else if errors.Is(err, storage.ErrNotFound) {
				err = nil
			}
			return err
		}))
		if found != "" {
			d.AuthEvents = append(d.AuthEvents, found)
		}
	}
	return d
}

func TestReceive_TakesPartInOurRoom(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"6", "10", "11", "12"} {
			id := k.create(version, "public", user("anna"))
			fred, _ := k.fred(id, version)
			e := k.far.pdu(t, version, k.draft(id, version, fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "from afar"}))
			r, err := k.receive(e)
			if err != nil || r.Flags != 0 || r.Pos == 0 {
				t.Fatalf("version %s: message = %+v, %v", version, r, err)
			}
			if again, err := k.receive(e); err != nil || !again.Known {
				t.Errorf("version %s: the same message again = %+v, %v; want known", version, again, err)
			}
			sent, err := k.say(id, user("anna"), "answer")
			k.must(err)
			if got := k.event(sent.EventID).PrevEvents; len(got) != 1 || got[0] != e.ID {
				t.Errorf("version %s: the answer follows %v, want %s", version, got, e.ID)
			}
		}
	})
}

func TestReceive_DropsWhatIsNotSigned(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	d := k.draft(id, "12", fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "x"})
	v, _ := matrix.FindRoomVersion("12")
	unsigned, err := event.Build(v, d)
	k.must(err)
	if _, err := k.receive(unsigned); !errors.Is(err, room.ErrDropped) {
		t.Errorf("unsigned event: %v, want ErrDropped", err)
	}
	d.Sender = user("anna") // signed by far.example in the name of another server's user
	if _, err := k.receive(k.far.pdu(t, "12", d)); !errors.Is(err, room.ErrDropped) {
		t.Errorf("event in another's name: %v, want ErrDropped", err)
	}
	if _, err := k.receive(k.far.pdu(t, "12", event.Draft{RoomID: id, Type: "m.room.message", Sender: fred, Depth: 9, PrevEvents: []matrix.EventID{"$" + matrix.EventID(make43('x'))},
		AuthEvents: d.AuthEvents, OriginServerTS: 1})); err == nil {
		t.Error("an event with unknown parents was taken in")
	} else if m := (*room.MissingError)(nil); !errors.As(err, &m) || len(m.Parents) != 1 {
		t.Errorf("unknown parents: %v, want MissingError", err)
	}
}

func make43(c byte) string {
	b := make([]byte, 43)
	for i := range b {
		b[i] = c
	}
	return string(b)
}

// A ban evaded by citing what was before it: kept, shown to nobody, not built upon.
func TestA54_BanEvasionByOldPrevEvents(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		fred, _ := k.fred(id, "12")
		d := k.draft(id, "12", fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "too late"})
		k.must(k.member(id, user("anna"), fred, "ban"))
		before := k.head(id)
		e := k.far.pdu(t, "12", d)
		r, err := k.receive(e)
		if err != nil || r.Flags != storage.SoftFailed {
			t.Fatalf("message from before the ban = %+v, %v; want soft-failed", r, err)
		}
		if after := k.head(id); len(after.Extremities) != 1 || after.Extremities[0] != before.Extremities[0] {
			t.Errorf("extremities %v, want %v as before", after.Extremities, before.Extremities)
		}
		for _, shown := range k.timeline(id) {
			if shown.ID == e.ID {
				t.Error("a soft-failed event is in the timeline")
			}
		}
		if k.event(e.ID) == nil {
			t.Error("a soft-failed event must be kept")
		}
		if _, err := k.say(id, user("anna"), "on"); err != nil {
			t.Errorf("send after a soft failure: %v", err)
		}
	})
}

func TestA37_A39_RejectedAgainstAuthEvents(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	bad := k.far.pdu(t, "12", k.draft(id, "12", fred, "m.room.topic", ptr(""), map[string]any{"topic": "mine"}))
	r, err := k.receive(bad)
	if err != nil || r.Flags&storage.Rejected == 0 {
		t.Fatalf("topic without power = %+v, %v; want rejected", r, err)
	}
	d := k.draft(id, "12", fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "x"})
	d.AuthEvents = append(d.AuthEvents, bad.ID)
	if r, err := k.receive(k.far.pdu(t, "12", d)); err != nil || r.Flags&storage.Rejected == 0 {
		t.Errorf("event that cites a rejected one = %+v, %v; want rejected", r, err)
	}
	d.AuthEvents = append(d.AuthEvents[:len(d.AuthEvents)-1], d.AuthEvents[0])
	if r, err := k.receive(k.far.pdu(t, "12", d)); err == nil && r.Flags&storage.Rejected == 0 {
		t.Errorf("event with doubled auth events = %+v, want rejected", r)
	}
}

// Two servers write at once: the fork has two ends, its states are resolved, and the next event joins them.
func TestReceive_ForkIsResolved(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"1", "5", "11", "12"} {
			id := k.create(version, "public", user("anna"))
			fred, _ := k.fred2(id, version)
			levels := map[string]any{"users": map[string]any{"@anna:acme.example": 100, string(fred): 50}, "invite": 0}
			if version == "12" {
				levels["users"] = map[string]any{string(fred): 50}
			}
			k.must(k.state(id, user("anna"), "m.room.power_levels", "", levels))
			d := k.draft(id, version, fred, "m.room.topic", ptr(""), map[string]any{"topic": "fred's"})
			if version == "1" {
				d.EventID = "$fredtopic:far.example"
			}
			k.must(k.state(id, user("anna"), "m.room.name", "", map[string]any{"name": "anna's"}))
			k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "anna's"}))
			e := k.far.pdu(t, version, d)
			r, err := k.receive(e)
			if err != nil || r.Flags != 0 {
				t.Fatalf("version %s: fork = %+v, %v", version, r, err)
			}
			if h := k.head(id); len(h.Extremities) != 2 {
				t.Errorf("version %s: %d extremities, want 2", version, len(h.Extremities))
			}
			name := k.event(k.stateID(id, "m.room.name", ""))
			if s, _ := event.ContentString(name.Event, "name"); s != "anna's" {
				t.Errorf("version %s: name %q after the fork", version, s)
			}
			sent, err := k.say(id, user("anna"), "together")
			k.must(err)
			if got := k.event(sent.EventID).PrevEvents; len(got) != 2 {
				t.Errorf("version %s: next event follows %d events, want both ends", version, len(got))
			}
			if h := k.head(id); len(h.Extremities) != 1 {
				t.Errorf("version %s: %d extremities after joining, want 1", version, len(h.Extremities))
			}
			before := k.stateID(id, "m.room.topic", "")
			k.restart()
			var memory matrix.EventID
			k.must(k.rooms.Look(k.ctx(), id, func(v room.View) { memory = v.State("m.room.topic", "").ID }))
			if memory != before {
				t.Errorf("version %s: topic in memory %s, in the database %s", version, memory, before)
			}
		}
	})
}

// fred2 is fred also where event IDs are free.
func (k *kit) fred2(id matrix.RoomID, version string) (matrix.UserID, *event.Event) {
	if version != "1" && version != "2" {
		return k.fred(id, version)
	}
	fred := matrix.UserID("@fred:far.example")
	d := k.draft(id, version, fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join"})
	d.EventID = matrix.EventID("$fred" + version + ":far.example")
	e := k.far.pdu(k.t, version, d)
	r, err := k.receive(e)
	if err != nil || r.Flags != 0 {
		k.t.Fatalf("fred's join: %+v, %v", r, err)
	}
	return fred, e
}

// What policy refuses of a stranger's events is withheld: part of the graph, shown to nobody, and the room goes on.
func TestReceive_WithholdsWhatPolicyRefuses(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) { // no agreement with far.example
		id := k.create("12", "public", user("anna"))
		fred := matrix.UserID("@fred:far.example")
		e := k.far.pdu(t, "12", k.draft(id, "12", fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join"}))
		r, err := k.receive(e)
		if err != nil || r.Flags != storage.Withheld {
			t.Fatalf("join of a server without agreement = %+v, %v; want withheld", r, err)
		}
		if n := len(k.timeline(id)); n != 5 {
			t.Errorf("%d events are shown, want 5", n)
		}
		var refused *matrix.Error
		if _, err := k.say(id, user("anna"), "on"); !errors.As(err, &refused) || refused.Status != 403 {
			t.Errorf("send into a room that holds a server without agreement: %v, want 403", err)
		}
		k.must(k.member(id, user("anna"), fred, "leave"))
		if _, err := k.say(id, user("anna"), "on"); err != nil {
			t.Errorf("send after the stranger was removed: %v", err)
		}
	})
}
