package storage_test

import (
	"context"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func TestRemoteMembers(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		const room, anna = matrix.RoomID("!a:far.example"), matrix.UserID("@anna:acme.example")
		v, _ := matrix.FindRoomVersion("11")
		put := func(membership, event string) {
			t.Helper()
			err := db.Update(ctx, func(tx *storage.Tx) error {
				return tx.PutRemoteMember(storage.RemoteMember{RoomID: room, UserID: anna, Membership: membership, Sender: "@a\x00b:far.example", Version: v,
					EventID: matrix.EventID(event), Via: "far.example", Event: []byte("{}"), Stripped: []byte(`[{"type":"x"}]`)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		find := func() (m storage.RemoteMember, ok bool, list []storage.RemoteMember, n int) {
			t.Helper()
			err := db.View(ctx, func(tx *storage.Tx) (err error) {
				if m, ok, err = tx.FindRemoteMember(room, anna); err != nil {
					return err
				}
				if list, err = tx.LoadRemoteMembers(anna, 0); err == nil {
					n, err = tx.CountRemoteInvites(anna)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return m, ok, list, n
		}
		put("invite", "$1")
		m, ok, list, n := find()
		if !ok || m.EventID != "$1" || m.Sender != "@a\x00b:far.example" || m.Version != v && m.Version.ID != "11" || m.Pos != 1 || !m.Open() || len(list) != 1 || n != 1 {
			t.Errorf("after the invitation: %+v, %v, %d in the list, %d counted", m, ok, len(list), n)
		}
		err := db.View(ctx, func(tx *storage.Tx) error {
			log, err := tx.ReadLog(0, 10)
			if len(log) != 1 || log[0].Name != storage.NoticeRemoteMember || log[0].Ref != string(anna) || log[0].Pos != 1 {
				t.Errorf("the log has %+v", log)
			}
			later, lerr := tx.LoadRemoteMembers(anna, 1)
			if len(later) != 0 || lerr != nil {
				t.Errorf("after the invitation's position: %+v, %v", later, lerr)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		put("leave", "$2")
		if m, ok, list, n = find(); !ok || m.Open() || m.Pos != 2 || len(list) != 1 || n != 0 {
			t.Errorf("after the end: %+v, %v, %d in the list, %d counted", m, ok, len(list), n)
		}
		// The user comes into the room: that counts, also against what is said of it by another way later.
		c := newChain(string(room))
		if err := db.Append(ctx, c.next(t, "m.room.member", ptr(string(anna)), `{"membership":"join"}`)); err != nil {
			t.Fatal(err)
		}
		put("invite", "$3")
		if _, ok, list, n = find(); ok || len(list) != 0 || n != 0 {
			t.Errorf("who is in the room is invited: %v, %d in the list, %d counted", ok, len(list), n)
		}
		err = db.Update(ctx, func(tx *storage.Tx) error {
			for _, want := range []bool{true, false} {
				if got, err := tx.DropRemoteMember(room, anna); err != nil || got != want {
					t.Errorf("drop: %v, %v", got, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
