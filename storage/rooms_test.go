package storage_test

import (
	"context"
	"fmt"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// TestEachMember_TellsOfAll is two rooms, one of which has more members than a statement reads.
func TestEachMember_TellsOfAll(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		want := map[matrix.RoomID]int{"!hall:acme.example": 45_000, "!office:acme.example": 3}
		var rooms []matrix.RoomID
		for room, n := range want {
			rooms = append(rooms, room)
			if err := db.Append(ctx, newChain(string(room)).next(t, "m.room.message", nil, `{}`)); err != nil {
				t.Fatal(err)
			}
			if err := storage.Tamper(db, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
				INSERT INTO memberships (room_num, user_id, membership, sender, event_id, auth_rank, pos, forgotten)
				SELECT r.room_num, '@member' || n.i || ':acme.example', 'join', '@anna:acme.example', '$' || n.i, 1, 1, 0 FROM rooms r, n WHERE r.room_id = '%s'`, n, room)); err != nil {
				t.Fatal(err)
			}
		}
		for _, some := range [][]matrix.RoomID{rooms, {"!office:acme.example", "!nowhere:acme.example"}} {
			got := map[matrix.RoomID]map[matrix.UserID]bool{}
			told := 0
			if err := db.View(ctx, func(tx *storage.Tx) error {
				return tx.EachMember(some, func(m *storage.Member) {
					if got[m.RoomID] == nil {
						got[m.RoomID] = map[matrix.UserID]bool{}
					}
					got[m.RoomID][m.UserID] = true
					told++
				})
			}); err != nil {
				t.Fatal(err)
			}
			all := 0
			for _, room := range some {
				if all += want[room]; len(got[room]) != want[room] {
					t.Errorf("%s has %d members, want %d", room, len(got[room]), want[room])
				}
			}
			if told != all {
				t.Errorf("told of %d members, want each of %d once", told, all)
			}
		}
	})
}
