package room_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
	"hansa/storage/statemap"
)

// grown makes a room of 30 messages with changes of state between them and two ends. It returns its events in order, and a state that was long ago.
func (k *kit) grown(version string) (id matrix.RoomID, events []matrix.EventID, early statemap.Hash) {
	k.t.Helper()
	anna, bob := user("anna"), user("bob")
	id = k.create(version, "public", anna)
	early = k.head(id).StateRoot
	for i := range 30 {
		if i%7 == 3 {
			k.must(k.state(id, anna, "m.room.topic", "", map[string]any{"topic": fmt.Sprint("topic ", i)}))
			k.must(k.member(id, bob, bob, []string{auth.Join, auth.Leave}[i/7%2]))
		}
		_, err := k.say(id, anna, bodyOf(i))
		k.must(err)
	}
	fred, _ := k.fred(id, version)
	end := k.head(id)
	for _, name := range []string{"Fred", "Freddy"} { // of one parent: the next event of ours makes one state of two
		d := k.draft(id, version, fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join", "displayname": name})
		d.PrevEvents, d.Depth = end.Extremities, end.Depth+1
		if r, err := k.receive(k.far.pdu(k.t, version, d)); err != nil || r.Flags != 0 {
			k.t.Fatalf("version %s: %+v, %v", version, r, err)
		}
	}
	for i := range 2 {
		_, err := k.say(id, anna, bodyOf(i))
		k.must(err)
	}
	for _, e := range k.timeline(id) {
		events = append(events, e.ID)
	}
	k.restart()
	return id, events, early
}

// The states after events are made anew from those before them. What is not so is found and set right, wherever it is, and the current state is not made of it.
func TestD482_StatesAfterEventsAreMadeAnew(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"3", "6", "12"} {
			id, events, early := k.grown(version)
			if found := k.audit(id); found != "" {
				t.Fatalf("version %s: where all is well %s is wrong", version, found)
			}
			head, last := k.head(id), len(events)-1
			for what, at := range map[string][]int{"the create event": {0}, "the power levels": {2}, "the middle": {20}, "several": {9, 10, 25}, "one of two ends": {last - 2},
				"where two states become one": {last - 1}, "the end": {last}} {
				var want []matrix.EventID
				roots := map[matrix.EventID]statemap.Hash{}
				for _, i := range at {
					want = append(want, events[i])
					roots[events[i]] = k.event(events[i]).StateRoot
					k.tamper(`UPDATE events SET state_root = $2 WHERE event_id = $1`, string(events[i]), k.otherRoot(events[i], early))
				}
				k.restart()
				other := k.beside()
				other.event(events[last])
				before := k.position()
				found, err := k.rooms.AuditState(k.ctx(), id)
				k.must(err)
				if !slices.Equal(found.Events, want) || len(found.Keys) > 0 {
					t.Errorf("version %s, %s: %+v is wrong, want the states after %v", version, what, found, want)
				}
				for event, root := range roots {
					if k.event(event).StateRoot != root {
						t.Errorf("version %s, %s: the state after %s was not set right", version, what, event)
					}
				}
				if h := k.head(id); h.StateRoot != head.StateRoot || !slices.Equal(h.Extremities, head.Extremities) {
					t.Errorf("version %s, %s: the head is %+v, was %+v", version, what, h, head)
				}
				if found := k.audit(id); found != "" {
					t.Errorf("version %s, %s: %s is wrong after it was set right", version, what, found)
				}
				other.refresh(before)
				if _, err := other.say(id, user("anna"), "on it goes"); err != nil {
					t.Errorf("version %s, %s: %v", version, what, err)
				}
				head = other.head(id)
				k.restart()
			}
		}
	})
}

// otherRoot is a state that is not the one after an event.
func (k *kit) otherRoot(id matrix.EventID, early statemap.Hash) []byte {
	k.t.Helper()
	e := k.event(id)
	if e.StateRoot != early {
		return early[:]
	}
	next := k.timeline(e.RoomID)[10]
	return next.StateRoot[:]
}

// Where it cannot be told which of what is kept is right, nothing is changed.
func TestD482_ContradictionsAreLeft(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		const newest, all = 10, "that, and the current state"
		id, events, early := k.grown("11")
		last := len(events) - 1
		given := func(i int) {
			k.tamper(`UPDATE events SET flags = flags | $2 WHERE event_id = $1`, string(events[i]), int64(storage.Gapped))
		}
		root := func(i int, h []byte) {
			k.tamper(`UPDATE events SET state_root = $2 WHERE event_id = $1`, string(events[i]), h)
		}
		for _, tt := range []struct {
			what   string
			tamper func()
			events []int
			keys   bool
		}{
			{"the oldest that is looked at", func() { root(last+1-newest, early[:]) }, []int{last + 2 - newest}, false},
			{"a state that another server told", func() { given(20); root(20, early[:]) }, []int{21}, false},
			{"what follows a state that another server told", func() { given(20); root(21, early[:]) }, []int{21, 22}, false},
			{"an end whose state another server told", func() { given(last); root(last, early[:]) }, nil, true},
			{all, func() {
				given(last)
				k.tamper(`UPDATE rooms SET state_root = $2 WHERE room_id = $1`, string(id), early[:])
				k.tamper(`DELETE FROM current_state WHERE type = 'm.room.topic'`)
			}, nil, true},
		} {
			saved := map[matrix.EventID]*storage.Event{}
			for _, e := range events {
				saved[e] = k.event(e)
			}
			head, topic := k.head(id), k.stateID(id, "m.room.topic", "")
			tt.tamper()
			k.restart()
			if tt.what == "the oldest that is looked at" {
				k.rooms.AuditOnly(newest)
			}
			before := k.position()
			found, err := k.rooms.AuditState(k.ctx(), id)
			var want []matrix.EventID
			for _, i := range tt.events {
				want = append(want, events[i])
			}
			if !errors.Is(err, room.ErrContradiction) || !slices.Equal(found.Events, want) || (len(found.Keys) > 0) != tt.keys {
				t.Errorf("%s: %+v, %v, want the states after %v", tt.what, found, err, want)
			}
			if n := k.rooms.Audits(); n != (room.Audits{Contradictory: 1}) {
				t.Errorf("%s: %+v", tt.what, n)
			}
			if k.position() != before {
				t.Errorf("%s: something was written", tt.what)
			}
			for _, e := range saved {
				k.tamper(`UPDATE events SET state_root = $2, flags = $3 WHERE event_id = $1`, string(e.ID), e.StateRoot[:], int64(e.Flags))
			}
			k.tamper(`UPDATE rooms SET state_root = $2 WHERE room_id = $1`, string(id), head.StateRoot[:])
			k.restart()
			if found := k.audit(id); found != map[bool]string{tt.what == all: "m.room.topic "}[true] || k.stateID(id, "m.room.topic", "") != topic {
				t.Errorf("%s: %q is wrong when all but the rows of the last is as it was", tt.what, found)
			}
		}
		k.rooms.AuditOnly(newest)
		root(20, early[:]) // older than what is looked at
		if found := k.audit(id); found != "" {
			t.Errorf("%s is wrong", found)
		}
	})
}

// Rooms are read in pages.
func TestD482_LongRoom(t *testing.T) {
	t.Parallel()
	anna := user("anna")
	each(t, nil, func(t *testing.T, k *kit) {
		id := k.create("11", "public", anna)
		early := k.head(id).StateRoot
		k.must(k.state(id, anna, "m.room.topic", "", map[string]any{"topic": "one"}))
		var events []matrix.EventID
		for i := range 450 {
			sent, err := k.say(id, anna, bodyOf(i))
			k.must(err)
			events = append(events, sent.EventID)
		}
		k.tamper(`UPDATE events SET state_root = $2 WHERE event_id = $1 OR event_id = $3`, string(events[250]), early[:], string(events[30]))
		if found, want := k.audit(id), string(events[30])+", "+string(events[250]); found != want {
			t.Errorf("%s is wrong, want %s", found, want)
		}
	})
}
