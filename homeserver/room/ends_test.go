package room_test

import (
	"slices"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// thread is a chain of messages of the far server on the room's head: what fred says, what gina says while she is in the room, and so on. When
// it is done gina is not in the room any more, so that what she said fails softly.
func thread(k *kit, id matrix.RoomID, version string, who ...string) (list []*event.Event, state []matrix.EventID) {
	k.t.Helper()
	fred, _ := k.fred(id, version)
	gina := matrix.UserID("@gina:far.example")
	k.accepted(id, "gina", k.far.forge(k.t, version, k.draft(id, version, gina, "m.room.member", ptr(string(gina)), map[string]any{"membership": "join"})))
	k.must(k.rooms.Look(k.ctx(), id, func(v room.View) {
		for e := range v.AllState() {
			state = append(state, e.ID)
		}
		for u := range v.Members() {
			state = append(state, v.MemberEvent(u))
		}
	}))
	end := k.head(id)
	for i, name := range who {
		sender := map[string]matrix.UserID{"fred": fred, "gina": gina}[name]
		d := k.draft(id, version, sender, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": bodyOf(i)})
		d.PrevEvents, d.Depth = end.Extremities, end.Depth+1
		e := k.far.pdu(k.t, version, d)
		list = append(list, e)
		end = storage.Head{Extremities: []matrix.EventID{e.ID}, Depth: d.Depth}
	}
	k.must(k.member(id, user("anna"), gina, "leave"))
	return list, state
}

// An event that nobody sees comes last, between one that has come and one that was an end of the graph until then: that is no end any more.
func TestReceive_HiddenEventClosesAGap(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"6", "12"} {
			for _, who := range [][]string{{"fred", "gina", "fred"}, {"fred", "gina", "gina", "fred"}} {
				id := k.create(version, "public", user("anna"))
				list, state := thread(k, id, version, who...)
				top := list[len(list)-1]
				if _, err := k.rooms.Receive(k.ctx(), room.Incoming{RoomID: id, JSON: event.Federation(top), StateBefore: state}); err != nil {
					t.Fatal(err)
				}
				for i, e := range list[:len(list)-1] {
					in := room.Incoming{RoomID: id, JSON: event.Federation(e)}
					if i == 2 { // before the one that leads to it
						continue
					}
					r, err := k.rooms.Receive(k.ctx(), in)
					if err != nil || r.Flags&storage.SoftFailed != 0 != (who[i] == "gina") {
						t.Fatalf("version %s: event %d: %+v, %v", version, i, r, err)
					}
				}
				if len(list) == 4 {
					r, err := k.receive(list[2])
					if err != nil || r.Flags != storage.SoftFailed {
						t.Fatalf("version %s: %+v, %v", version, r, err)
					}
				}
				if ends := k.head(id).Extremities; slices.Contains(ends, list[0].ID) || !slices.Contains(ends, top.ID) {
					t.Errorf("version %s, %v: the ends are %v, want the last of %v and not the first", version, who, ends, []matrix.EventID{list[0].ID, top.ID})
				}
				k.goesOn(id)
			}
		}
	})
}

// What an event follows by way of one that nobody sees is no end of the graph when it comes later.
func TestReceive_WhatHiddenEventsFollowIsNoEnd(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"6", "12"} {
			id := k.create(version, "public", user("anna"))
			list, state := thread(k, id, version, "fred", "gina", "fred")
			r, err := k.rooms.Receive(k.ctx(), room.Incoming{RoomID: id, JSON: event.Federation(list[1]), StateBefore: state})
			if err != nil || r.Flags != storage.SoftFailed {
				t.Fatalf("version %s: %+v, %v", version, r, err)
			}
			for _, e := range []*event.Event{list[2], list[0]} {
				if r, err := k.receive(e); err != nil || r.Flags != 0 {
					t.Fatalf("version %s: %+v, %v", version, r, err)
				}
			}
			if ends := k.head(id).Extremities; slices.Contains(ends, list[0].ID) || !slices.Contains(ends, list[2].ID) {
				t.Errorf("version %s: the ends are %v, want the last of %v and not the first", version, ends, []matrix.EventID{list[0].ID, list[2].ID})
			}
			k.goesOn(id)
		}
	})
}

// What only an event that failed softly leads to is no history: else whoever was banned could bring in by its parents what is refused otherwise.
func TestBackfill_NothingBehindWhatFailedSoftly(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"6", "12"} {
			far := k.meet()
			id := k.create(version, "public", user("anna"))
			list, state := thread(k, id, version, "gina", "gina", "fred")
			far.put(list[0])
			far.state = func(matrix.EventID) ([]matrix.EventID, []matrix.EventID) { return state, nil }
			r, err := k.rooms.Receive(k.ctx(), room.Incoming{RoomID: id, JSON: event.Federation(list[1]), StateBefore: state})
			if err != nil || r.Flags != storage.SoftFailed {
				t.Fatalf("version %s: %+v, %v", version, r, err)
			}
			if more, err := k.backfill(id, 10); more || err != nil {
				t.Errorf("version %s: more %t, %v", version, more, err)
			}
			shown := func() bool {
				return slices.ContainsFunc(k.timeline(id), func(e *storage.Event) bool { return e.ID == list[0].ID })
			}
			if shown() {
				t.Errorf("version %s: the parent of an event that failed softly is shown", version)
			}
			// What is seen and follows it makes it history.
			if r, err := k.receive(list[2]); err != nil || r.Flags != 0 {
				t.Fatalf("version %s: %+v, %v", version, r, err)
			}
			if _, err := k.backfill(id, 10); err != nil || !shown() {
				t.Errorf("version %s: the history is not shown, %v", version, err)
			}
		}
	})
}
