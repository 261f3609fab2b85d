package room_test

import (
	"fmt"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// Resolving a fork costs what the fork is, however long the auth chains below it are: the power levels have changed hundreds of times,
// and hundreds have come.
func TestA61_ForkAboveALongAuthChain(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		for _, version := range []string{"11", "12"} {
			reads := map[int]int64{}
			for _, length := range []int{10, 300} {
				id := k.create(version, "public", user("anna"))
				fred, _ := k.fred(id, version)
				levels := func(n int) map[string]any {
					users := map[string]any{string(fred): 50}
					if version != "12" {
						users[string(user("anna"))] = 100
					}
					return map[string]any{"users": users, "events": map[string]any{"x": n % 50}}
				}
				for i := range length {
					k.must(k.state(id, user("anna"), "m.room.power_levels", "", levels(i)))
					if i%3 == 0 {
						k.must(k.member(id, user(fmt.Sprint("m", i)), user(fmt.Sprint("m", i)), "join"))
					}
				}
				d := k.draft(id, version, fred, "m.room.topic", ptr(""), map[string]any{"topic": "fred's"})
				ban := k.draft(id, version, fred, "m.room.member", ptr(string(user("m0"))), map[string]any{"membership": "leave"})
				k.must(k.state(id, user("anna"), "m.room.power_levels", "", levels(length)))
				k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "anna's"}))
				k.restart()
				k.must(k.rooms.Look(k.ctx(), id, func(room.View) {}))
				before := k.db.Stats().Reads
				for _, d := range []event.Draft{d, ban} {
					if r, err := k.receive(k.far.pdu(t, version, d)); err != nil || r.Flags != 0 {
						t.Fatalf("version %s: fork: %+v, %v", version, r, err)
					}
				}
				reads[length] = k.db.Stats().Reads - before
			}
			if reads[300] > reads[10]+20 {
				t.Errorf("version %s: a fork cost %d reads above 10 power levels and %d above 300", version, reads[10], reads[300])
			}
		}
	})
}

// An index that lacks events, as after an upgrade, is made up for when it is needed.
func TestA61_IndexOfOldRooms(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("11", "public", user("anna"))
		fred, _ := k.fred(id, "11")
		k.must(k.state(id, user("anna"), "m.room.power_levels", "", map[string]any{"users": map[string]any{string(user("anna")): 100, string(fred): 50}}))
		d := k.draft(id, "11", fred, "m.room.topic", ptr(""), map[string]any{"topic": "fred's"})
		k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": "anna's"}))
		var ids []matrix.EventID
		for _, e := range k.timeline(id) {
			if e.StateKey != nil {
				ids = append(ids, e.ID)
			}
		}
		places := func() (out map[matrix.EventID]storage.AuthPlace) {
			k.must(k.db.Read(k.ctx(), func(tx *storage.Tx) (err error) { out, err = tx.LoadAuthPlaces(ids); return err }))
			return out
		}
		if n := len(places()); n != len(ids) {
			t.Fatalf("%d of %d events have a place", n, len(ids))
		}
		k.must(k.db.Update(k.ctx(), func(tx *storage.Tx) error { return tx.ForgetAuth(id) }))
		if n := len(places()); n != 0 {
			t.Fatalf("%d events still have a place", n)
		}
		if r, err := k.receive(k.far.pdu(t, "11", d)); err != nil || r.Flags != 0 {
			t.Fatalf("fork: %+v, %v", r, err)
		}
		if got := places(); len(got) != len(ids) {
			t.Errorf("%d of %d events have a place again", len(got), len(ids))
		}
	})
}
